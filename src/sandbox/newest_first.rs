//! What the sandbox keeps of one kind, by id, newest first.

use std::collections::BTreeMap;

/// Things with an id, in the order in which they were created.
#[derive(Debug)]
pub struct NewestFirst<T> {
    things: BTreeMap<u64, (String, T)>,
    serials: BTreeMap<String, u64>,
}

impl<T> Default for NewestFirst<T> {
    fn default() -> Self {
        Self { things: BTreeMap::new(), serials: BTreeMap::new() }
    }
}

impl<T: Clone> NewestFirst<T> {
    pub fn len(&self) -> usize {
        self.things.len()
    }

    /// Keeps `thing`; serials only grow.
    pub fn insert(&mut self, serial: u64, id: &str, thing: T) {
        self.things.insert(serial, (id.to_owned(), thing));
        self.serials.insert(id.to_owned(), serial);
    }

    /// The one called `id`.
    pub fn get(&self, id: &str) -> Option<&T> {
        self.things.get(self.serials.get(id)?).map(|(_, thing)| thing)
    }

    /// The serial of the one called `id`.
    pub fn serial(&self, id: &str) -> Option<u64> {
        self.serials.get(id).copied()
    }

    /// Forgets the one called `id`.
    pub fn remove(&mut self, id: &str) -> Option<T> {
        self.things.remove(&self.serials.remove(id)?).map(|(_, thing)| thing)
    }

    /// Everything, newest first, with its serial.
    pub fn newest(&self) -> impl Iterator<Item = (u64, &T)> {
        self.things.iter().rev().map(|(serial, (_, thing))| (*serial, thing))
    }

    /// What is older than `serial`, newest first.
    pub fn before(&self, serial: u64) -> impl Iterator<Item = (u64, &T)> {
        self.things.range(..serial).rev().map(|(serial, (_, thing))| (*serial, thing))
    }

    /// What is newer than `serial`, oldest first.
    pub fn after(&self, serial: u64) -> impl Iterator<Item = (u64, &T)> {
        self.things.range(serial.saturating_add(1)..).map(|(serial, (_, thing))| (*serial, thing))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newest_first_and_pages_on_from_a_deleted_one() {
        let mut kept = NewestFirst::default();
        for (serial, id) in [(1, "a"), (4, "b"), (9, "c")] {
            kept.insert(serial, id, id);
        }
        assert_eq!(kept.newest().map(|(_, id)| *id).collect::<String>(), "cba");
        assert_eq!(kept.remove("b"), Some("b"));
        assert_eq!(kept.before(4).map(|(_, id)| *id).collect::<String>(), "a");
        assert_eq!(kept.after(4).map(|(_, id)| *id).collect::<String>(), "c");
        assert_eq!((kept.get("b"), kept.serial("c"), kept.len()), (None, Some(9), 2));
    }
}
