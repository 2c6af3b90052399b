//! What is done to the daemons and to their server, and when, by the seed.

use crate::patience::{now, pause};
use crate::stage::{NAMES, Node, Stage};
use crate::support::postgres::Stop;
use std::time::{Duration, Instant};

/// How much of each.
#[derive(Clone, Copy, Debug)]
pub struct Amounts {
    pub kills: u64,
    pub freezes: u64,
    pub restarts: u64,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Kill,
    /// Told to stop in the ordinary way.
    Stop,
    /// Stopped where it stands.
    Freeze,
    /// The server's end, as a crash or not.
    Restart(Stop),
    /// A daemon's connections to the server are cut.
    Cut,
}

/// The daemons, with what is to become of them.
pub struct Hunted<'a> {
    stage: &'a Stage<'a>,
    pub nodes: Vec<Node<'a>>,
    pub wrong: Vec<String>,
    /// When the last daemon was started, or the server came back.
    pub last: Instant,
    /// How long the server was away in all.
    pub away: Duration,
    pub done: Vec<String>,
}

impl<'a> Hunted<'a> {
    pub fn begin(stage: &'a Stage<'a>) -> Self {
        let nodes = NAMES.iter().map(|name| Node::started(stage, name)).collect();
        Self { stage, nodes, wrong: Vec::new(), last: now(), away: Duration::ZERO, done: Vec::new() }
    }

    /// Does all of it, one after the other, at moments from the seed.
    pub fn suffer(&mut self, amounts: Amounts, rng: &mut fastrand::Rng) {
        let mut faults = vec![Fault::Kill; usize::try_from(amounts.kills).unwrap()];
        faults.extend((0..amounts.freezes).map(|_| Fault::Freeze));
        let how = |number: u64| if number.is_multiple_of(2) { Stop::Immediate } else { Stop::Fast };
        faults.extend((0..amounts.restarts).map(|number| Fault::Restart(how(number))));
        faults.extend((0..amounts.kills / 10).flat_map(|_| [Fault::Stop, Fault::Cut]));
        rng.shuffle(&mut faults);
        let begun = now();
        for fault in faults {
            self.wait(Duration::from_millis(rng.u64(300..3500)));
            let name = self.inflict(fault, rng);
            self.done.push(format!("{:.1} s: {fault:?} {name}", begun.elapsed().as_secs_f64()));
        }
        self.recover();
    }

    /// Lets time go by, in which daemons come back.
    fn wait(&mut self, time: Duration) {
        let until = now() + time;
        loop {
            self.bring_back(now());
            let left = until.saturating_duration_since(now());
            if left.is_zero() {
                return;
            }
            pause(left.min(Duration::from_millis(50)));
        }
    }

    fn bring_back(&mut self, at: Instant) {
        for node in &mut self.nodes {
            if node.frozen_until.is_some_and(|until| until <= at) {
                node.thaw();
            }
            if node.back_at.is_some_and(|back_at| back_at <= at) {
                node.start();
                self.last = now();
            }
        }
    }

    fn inflict(&mut self, fault: Fault, rng: &mut fastrand::Rng) -> &'static str {
        if let Fault::Restart(how) = fault {
            let away = now();
            self.stage.postgres.stop(how);
            self.wait(Duration::from_millis(rng.u64(..3000)));
            self.stage.postgres.start();
            self.last = now();
            self.away += away.elapsed();
            return "the server";
        }
        let pick = rng.usize(..self.nodes.len());
        let node = &mut self.nodes[pick];
        if !node.runs() {
            node.start();
            self.last = now();
        }
        // Mostly it is back at once, as systemd has it; now and then only after others have taken over.
        let absence =
            Duration::from_millis(if rng.u32(..6) == 0 { rng.u64(4000..9000) } else { rng.u64(..1500) });
        let ended = match fault {
            Fault::Freeze => {
                node.freeze(Duration::from_millis(rng.u64(500..15_000)));
                return node.name;
            }
            Fault::Cut => {
                self.stage.proxy(node.name).cut();
                return node.name;
            }
            Fault::Stop if node.frozen_until.is_none() => node.stop().map(drop),
            _ => node.kill(),
        };
        node.back_at = Some(now() + absence);
        self.wrong.extend(ended.err().map(|what| format!("{what}\n{}", node.log())));
        node.name
    }

    /// Has everything run again.
    fn recover(&mut self) {
        self.bring_back(now() + Duration::from_mins(10));
        for node in &self.nodes {
            self.wrong.extend(node.answers().err());
        }
        self.last = now();
    }
}
