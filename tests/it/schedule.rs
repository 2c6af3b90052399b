//! The marks that the schedule is judged by, cut down to what a moment allows: `benches/schedule.rs` has them whole.

use crate::trial::{ROWS, at_budget, learnt, quantile, with_progress};
use batchd::rng::Rng;

#[test]
fn learnt_it_comes_near_the_optimum_and_unlearnt_it_is_no_worse_than_the_prior() {
    for (number, row) in ROWS.iter().enumerate() {
        let rng = Rng::seeded(number as u64);
        let durations: Vec<f64> = (0..3000).map(|_| (row.draw)(&rng)).collect();
        let ratio = |history: &[f64], rng: &Rng| {
            let (lag, looks) = at_budget(learnt(history).as_ref(), &durations, 40.0, 3, rng);
            assert!((35.0..45.0).contains(&looks), "{}: {looks} looks", row.name);
            lag * looks / row.optimum
        };
        let history: Vec<f64> = (0..200).map(|_| (row.draw)(&rng)).collect();
        let (none, some, all) = (ratio(&[], &rng), ratio(&history[..20], &rng), ratio(&history, &rng));
        // Durations are a sample too.
        assert!(none <= row.unlearnt * 1.03, "{}: {none} with none seen", row.name);
        assert!(some <= none, "{}: {some} with some seen, {none} with none", row.name);
        assert!(all <= 1.25, "{}: {all} with 200 seen", row.name);
    }
}

#[test]
fn progress_is_followed_to_the_end_by_few_looks() {
    for seed in 0..2 {
        let rng = Rng::seeded(seed);
        let (mut lags, looks): (Vec<f64>, Vec<usize>) =
            (0..200).map(|_| with_progress(None, 1000, 3600.0, 0.2, &rng)).unzip();
        let lag = quantile(&mut lags, 0.95);
        assert!(lag <= 30.0, "95 of 100 seen within {lag} s");
        assert!(looks.iter().all(|looks| *looks <= 20), "{:?} looks", looks.iter().max());
    }
}
