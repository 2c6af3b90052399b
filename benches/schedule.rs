//! How well looks are placed: lag × looks against the optimum, `cargo bench --bench schedule`.
//!
//! Pure simulation of the rule, so the figures do not depend on the machine; the same seed gives the same figures.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot be taken has failed")]
#![expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
#![expect(clippy::print_stdout, reason = "it prints what it measured")]

#[path = "harness/plot.rs"]
#[expect(dead_code, reason = "other benches use more of it")]
mod plot;
#[path = "../tests/it/trial.rs"]
mod trial;

use batchd::rng::Rng;
use plot::Line;
use trial::{ROWS, Row, at_budget, learnt, quantile, with_progress};

/// Batches of each kind, and histories to learn from.
const BATCHES: usize = 20_000;
const HISTORIES: usize = 5;
const BUDGETS: [f64; 3] = [30.0, 40.0, 60.0];
const SEEN: [usize; 6] = [0, 1, 5, 20, 50, 200];

fn main() {
    // `cargo test --benches` runs this too, and wants nothing of it.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "Mean lag in seconds x looks a batch, as a ratio to the optimum: 1.00 is the best that any schedule can do"
    );
    println!(
        "which knows how long such batches take, but not how long this one will. Bounds 15 s and 15 min, as by"
    );
    println!(
        "default; the price of a look is set so that a batch gets 30, 40 and 60. \"n seen\": learnt from n durations"
    );
    println!(
        "of the same kind. {BATCHES} batches a figure, mean of {HISTORIES} histories. The marks: no worse than the"
    );
    println!("prior with none seen, at most 1.25 with 200.\n");
    print!("{:<38} {:>8} {:>6} {:>7}", "duration of a batch", "optimum", "looks", "prior");
    for seen in SEEN {
        print!(" {:>8}", format!("{seen} seen"));
    }
    println!();
    let mut missed = 0;
    let mut learning = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        for budget in BUDGETS {
            let mut points = Vec::new();
            print!("{:<38} {:>8.0} {budget:>6.0} {:>7.2}", row.name, row.optimum, row.unlearnt);
            for seen in SEEN {
                let ratio = mean_ratio(row, number as u64, seen, budget);
                missed += usize::from(seen == 0 && ratio > row.unlearnt || seen == 200 && ratio > 1.25);
                print!(" {ratio:>8.2}");
                points.push((seen.max(1) as f64, ratio));
            }
            println!();
            if (budget - 40.0).abs() < 1.0 {
                // None seen and one seen share a place on the axis.
                points.remove(0);
                learning.push(Line { what: row.name.to_owned(), points });
            }
        }
    }
    println!("\n{missed} marks missed\n");
    plot::lines(
        "schedule",
        "Lag × checks against the optimum, at 40 checks",
        "durations seen",
        &learning,
        Some(1.25),
    );
    progress();
}

fn mean_ratio(row: &Row, number: u64, seen: usize, budget: f64) -> f64 {
    let rng = Rng::seeded(1000 + number);
    let durations: Vec<f64> = (0..BATCHES).map(|_| (row.draw)(&rng)).collect();
    let histories = if seen == 0 { 1 } else { HISTORIES };
    let sum: f64 = (0..histories)
        .map(|_| {
            let history: Vec<f64> = (0..seen).map(|_| (row.draw)(&rng)).collect();
            let (lag, looks) = at_budget(learnt(&history).as_ref(), &durations, budget, 8, &rng);
            lag * looks / row.optimum
        })
        .sum();
    sum / histories as f64
}

fn progress() {
    const TRIALS: usize = 2000;
    println!(
        "Batches that report progress at a steady noisy rate: default bounds and default price, {TRIALS} batches a"
    );
    println!(
        "line. \"noise\": how far a minute's worth of requests is off a minute, as a standard deviation. The mark: of"
    );
    println!("one-hour batches 95 in 100 are seen within 30 s of their end, by at most 20 looks.\n");
    println!("{:<44} {:>10} {:>10} {:>10} {:>10}", "batch", "lag p50", "lag p95", "looks p50", "looks max");
    for (what, total, hours, noise) in [
        ("1 h, 1,000 requests, noise 0.2", 1000, 1.0, 0.2),
        ("1 h, 1,000 requests, noise 0.5", 1000, 1.0, 0.5),
        ("1 h, 50,000 requests, noise 0.2", 50_000, 1.0, 0.2),
        ("1 h, 50 requests, noise 0.2", 50, 1.0, 0.2),
        ("10 min, 1,000 requests, noise 0.2", 1000, 1.0 / 6.0, 0.2),
        ("12 h, 50,000 requests, noise 0.2", 50_000, 12.0, 0.2),
    ] {
        for seen in [0, 200] {
            let rng = Rng::seeded(77);
            let history: Vec<f64> = (0..seen).map(|_| (ROWS[1].draw)(&rng) * hours).collect();
            let estimate = learnt(&history);
            let (mut lags, mut looks): (Vec<f64>, Vec<f64>) = (0..TRIALS)
                .map(|_| with_progress(estimate.clone(), total, hours * 3600.0, noise, &rng))
                .map(|(lag, looks)| (lag, looks as f64))
                .unzip();
            println!(
                "{:<44} {:>8.1} s {:>8.1} s {:>10} {:>10}",
                format!("{what}, {seen} seen"),
                quantile(&mut lags, 0.5),
                quantile(&mut lags, 0.95),
                quantile(&mut looks, 0.5),
                quantile(&mut looks, 1.0),
            );
        }
    }
}
