//! Which submissions a task of this process takes care of, so that reconciling leaves them alone.

use crate::sync::lock;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

/// The marks of the submissions that are under way in this process. Cheap to clone; all clones are one set.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActiveSubmissions(Arc<Mutex<BTreeSet<String>>>);

/// As long as it is held, its submission is in the set.
pub(super) struct Attendance {
    all: ActiveSubmissions,
    marker: String,
}

impl ActiveSubmissions {
    pub(super) fn has(&self, marker: &str) -> bool {
        lock(&self.0).contains(marker)
    }

    pub(super) fn begin(&self, marker: &str) -> Attendance {
        lock(&self.0).insert(marker.to_owned());
        Attendance { all: self.clone(), marker: marker.to_owned() }
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        lock(&self.all.0).remove(&self.marker);
    }
}
