"""Airflow reads the recipe's file, and its sensor waits for batches that end well and badly.

Arguments: the file, and two ids: of a batch that succeeds, and of one that fails. What Airflow's task runner would do is
done here: the sensor is executed in the mode `poke`, because `reschedule` needs the scheduler's database.
"""

import importlib.util
import sys

from airflow.sdk.exceptions import AirflowFailException

FILE, GOOD, BAD = sys.argv[1:]
spec = importlib.util.spec_from_file_location("recipe", FILE)
recipe = importlib.util.module_from_spec(spec)
spec.loader.exec_module(recipe)

sensor = recipe.ended
assert sensor.mode == "reschedule" and sensor.dag.dag_id == "nightly_evals", sensor
assert set(sensor.dag.task_ids) == {"wait_for_batch", "evaluate"}, sensor.dag.task_ids
assert sensor.dag.get_task("evaluate").upstream_task_ids == {"wait_for_batch"}


def wait(batch_id):
    return recipe.BatchdSensor(task_id="t", batch_id=batch_id, mode="poke", poke_interval=0.2, timeout=60).execute({})


batch = wait(GOOD)
assert batch["status"] == "completed" and batch["batchd"]["outcome"] == "succeeded", batch
try:
    wait(BAD)
except AirflowFailException as error:
    assert "ended as failed" in str(error), error
else:
    raise AssertionError("a batch that failed must fail the task")
print("airflow: ok")
