//! What is known of every key: its name, its documentation, its default, and how much of its value may be shown.

/// How much of a value may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    Plain,
    /// All of it, and of what is in it: a table whose keys the user chooses.
    PlainTable,
    /// Nothing of the values in it but where they come from: a table of secrets whose keys the user chooses.
    SecretTable,
    /// It, if it can be the name of an environment variable.
    Variable,
    /// Nothing.
    Secret,
    /// Scheme and host; the path too if `whole_path`.
    Address {
        /// Whether only a query and a user can be secret.
        whole_path: bool,
    },
}

/// A key, as it is declared.
#[derive(Debug)]
pub struct Key {
    pub name: &'static str,
    /// What it does, in a sentence or a few.
    pub doc: &'static str,
    /// Type and unit, and the bounds if there are any.
    pub form: fn() -> String,
    pub visibility: Visibility,
    /// What holds without the key; `None`: nothing.
    pub usual: fn() -> Option<Usual>,
}

/// What holds where a key is not given.
#[derive(Debug, PartialEq, Eq)]
pub enum Usual {
    /// This value, as TOML.
    Value(String),
    /// What these words say.
    Said(String),
}

/// A table of the file and the keys that it may hold.
#[derive(Debug)]
pub struct Section {
    /// Its name; `*` stands for a name that the user chooses.
    pub pattern: &'static str,
    pub about: &'static str,
    pub keys: &'static [&'static [Key]],
}

impl Section {
    pub fn keys(&self) -> impl Iterator<Item = &'static Key> + use<> {
        self.keys.iter().copied().flatten()
    }

    /// The first word of its name, which is a key of the file itself.
    pub fn group(&self) -> &'static str {
        self.pattern.split('.').next().unwrap_or(self.pattern)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Sections(pub &'static [Section]);

impl Sections {
    /// The keys of the section with this pattern; those of `""` are the tables themselves.
    pub fn keys_of(self, pattern: &str) -> Vec<&'static str> {
        if pattern.is_empty() {
            return self.0.iter().map(Section::group).collect();
        }
        self.section(pattern).into_iter().flat_map(Section::keys).map(|key| key.name).collect()
    }

    /// How much of the value at this path of keys may be shown: nothing, unless it is known to be harmless.
    pub fn visibility(self, path: &[&str]) -> Visibility {
        self.declared(path).unwrap_or(Visibility::Secret)
    }

    fn declared(self, path: &[&str]) -> Option<Visibility> {
        let (group, rest) = path.split_first()?;
        let section = self.0.iter().find(|section| section.group() == *group)?;
        let rest = if section.pattern == *group { rest } else { rest.get(1..)? };
        let (name, within) = rest.split_first()?;
        let whole = section.keys().find(|key| key.name == *name)?.visibility;
        Some(match (whole, within) {
            (whole, []) => whole,
            (Visibility::PlainTable, [_]) => Visibility::Plain,
            (Visibility::Secret | Visibility::Address { whole_path: false }, [source])
            | (Visibility::SecretTable, [_, source]) => match *source {
                "env" => Visibility::Variable,
                "file" | "credential" => Visibility::Plain,
                _ => Visibility::Secret,
            },
            _ => Visibility::Secret,
        })
    }

    /// Whether it is the name of a table or of a group of tables.
    pub fn is_table(self, name: &str) -> bool {
        self.0.iter().any(|section| section.group() == name)
    }

    /// Whether some table has a key of this name, or it is a table's.
    pub fn is_key(self, name: &str) -> bool {
        self.is_table(name) || self.named(name).next().is_some()
    }

    /// Whether it is the name of a key that never holds a secret, in whatever table.
    pub fn is_plain(self, name: &str) -> bool {
        let plain = |key: &Key| matches!(key.visibility, Visibility::Plain | Visibility::PlainTable);
        self.named(name).next().is_some() && self.named(name).all(plain)
    }

    /// The first section other than `pattern` that has the key.
    pub fn home(self, name: &str, pattern: &str) -> Option<&'static Section> {
        let has = |section: &&Section| section.keys().any(|key| key.name == name);
        self.0.iter().filter(|section| section.pattern != pattern).find(has)
    }

    fn section(self, pattern: &str) -> Option<&'static Section> {
        self.0.iter().find(|section| section.pattern == pattern)
    }

    fn named(self, name: &str) -> impl Iterator<Item = &'static Key> {
        self.0.iter().flat_map(Section::keys).filter(move |key| key.name == name)
    }
}
