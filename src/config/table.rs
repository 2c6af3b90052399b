//! Tables: how one is declared (`table!`), and how the keys of one in a file are read, each with its place.

use super::form::Form;
use super::keys::Sections;
use super::problem::{Problem, known, nearest, quote, shown};
use super::value::{Cell, PathBase, type_name};
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The value of a key, and its place.
#[derive(Debug, Default)]
pub enum Field<T> {
    /// The key is not there.
    #[default]
    Missing,
    /// It is there and was not understood, which has been reported.
    Wrong,
    Given(Spanned<T>),
}

impl<T> Field<T> {
    /// The value, if there is one that was understood.
    pub fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Self::Given(value) => Some(value),
            Self::Missing | Self::Wrong => None,
        }
    }

    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Missing)
    }

    pub fn is_wrong(&self) -> bool {
        matches!(self, Self::Wrong)
    }

    /// The value if one was given.
    pub fn value(&self) -> Option<T>
    where
        T: Clone,
    {
        self.given().map(|given| given.get_ref().clone())
    }
}

/// A table that the user named.
#[derive(Debug)]
pub struct Named<T> {
    /// Its name; the place is that of the name in the table's header.
    pub name: Spanned<String>,
    pub table: T,
}

/// Declares a table of the file: every key once, with its documentation, its form, and what holds without it.
///
/// ```text
/// table! {
///     /// What the table is for.
///     "pattern", Raw {
///         /// What the key does.
///         key: Type = FORM, usual VALUE, said "what the reference says of the default";
///     } => Settings { extra: Type } {
///         …
///     }
/// }
/// ```
///
/// `Raw` has a [`Field`] for every key. The keys of the first block are what the rules in `check` make something else
/// of. Those of the second, optional one become fields of `Settings` as they are, beside fields that are no keys
/// (`extra`); without `usual` such a field is an `Option`. `said` is for defaults that are no fixed value.
macro_rules! table {
    (
        $(#[doc = $about:literal])+
        $pattern:literal, $raw:ident {
            $(
                $(#[doc = $doc:literal])+
                $key:ident: $type:ty = $form:expr $(, usual $usual:expr)? $(, said $said:expr)?;
            )*
        }
        $(=> $(#[$attribute:meta])* $settings:ident {
            $( $(#[$extra_attribute:meta])* $extra:ident: $extra_type:ty ),* $(,)?
        } {
            $(
                $(#[doc = $kept_doc:literal])+
                $kept:ident: $kept_type:ty = $kept_form:expr
                    $(, usual $kept_usual:expr)? $(, said $kept_said:expr)?;
            )*
        })?
    ) => {
        $(#[doc = $about])+
        #[derive(Debug, Default)]
        pub struct $raw {
            $( $(#[doc = $doc])+ pub $key: $crate::config::table::Field<$type>, )*
            $( $( $(#[doc = $kept_doc])+ pub $kept: $crate::config::table::Field<$kept_type>, )* )?
        }

        impl $raw {
            pub const KEYS: &'static [$crate::config::keys::Key] = &[
                $( table!(@key $key, concat!($($doc),+), $form $(, usual $usual)? $(, said $said)?), )*
                $( $( table!(
                    @key $kept, concat!($($kept_doc),+), $kept_form $(, usual $kept_usual)? $(, said $kept_said)?
                ), )* )?
            ];

            pub const SECTION: $crate::config::keys::Section = $crate::config::keys::Section {
                pattern: $pattern,
                about: concat!($($about),+),
                keys: &[Self::KEYS],
            };

            pub fn read(table: &mut $crate::config::table::Table<'_, '_>) -> Self {
                Self {
                    $( $key: table.take(stringify!($key), &$form), )*
                    $( $( $kept: table.take(stringify!($kept), &$kept_form), )* )?
                }
            }
        }

        $(
            #[doc = concat!("`[", $pattern, "]`, as it is in force.")]
            $(#[$attribute])*
            pub struct $settings {
                $( $(#[$extra_attribute])* pub $extra: $extra_type, )*
                $( $(#[doc = $kept_doc])+ pub $kept: table!(@type $kept_type $(, $kept_usual)?), )*
            }

            impl $settings {
                /// What holds where the file says nothing.
                pub(super) fn usual($($extra: $extra_type),*) -> Self {
                    Self { $($extra,)* $( $kept: table!(@usual $($kept_usual)?), )* }
                }

                /// Every key that is set, with its value as TOML and without secrets.
                pub(super) fn written(&self) -> Vec<(&'static str, String)> {
                    let keys = [
                        $( (
                            stringify!($kept),
                            table!(@write (&self.$kept), $kept_form $(, $kept_usual)?),
                        ), )*
                    ];
                    keys.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
                }
            }

            impl $raw {
                /// `usual` with what the file says over it.
                pub(super) fn over(&self, usual: $settings) -> $settings {
                    $settings {
                        $( $extra: usual.$extra, )*
                        $( $kept: table!(@over (self.$kept.value()), (usual.$kept) $(, $kept_usual)?), )*
                    }
                }
            }
        )?
    };

    (@key $key:ident, $doc:expr, $form:expr $(, usual $usual:expr)? $(, said $said:expr)?) => {
        $crate::config::keys::Key {
            name: stringify!($key),
            doc: $doc,
            form: || $form.describe(),
            visibility: $form.visibility,
            usual: table!(@default $form $(, usual $usual)? $(, said $said)?),
        }
    };

    (@default $form:expr) => { || None };
    (@default $form:expr, usual $usual:expr) => {
        || ($form.write)(&$usual).map($crate::config::keys::Usual::Value)
    };
    (@default $form:expr $(, usual $usual:expr)?, said $said:expr) => {
        || Some($crate::config::keys::Usual::Said(String::from($said)))
    };

    (@type $type:ty) => { Option<$type> };
    (@type $type:ty, $usual:expr) => { $type };

    (@usual) => { None };
    (@usual $usual:expr) => { $usual };

    (@write ($value:expr), $form:expr) => { $value.as_ref().and_then($form.write) };
    (@write ($value:expr), $form:expr, $usual:expr) => { ($form.write)($value) };

    (@over ($given:expr), ($settled:expr)) => { $given.or($settled) };
    (@over ($given:expr), ($settled:expr), $usual:expr) => { $given.unwrap_or($settled) };
}

pub(super) use table;

/// A table that is being read.
pub struct Table<'a, 'i> {
    /// Its name in full; empty for the file itself.
    path: String,
    /// The pattern of its section.
    pattern: &'static str,
    entries: &'a DeTable<'i>,
    sections: Sections,
    base: PathBase<'a>,
    found: &'a mut Findings,
}

/// What is found while a file is read.
#[derive(Debug, Default)]
pub struct Findings {
    pub problems: Vec<Problem>,
    /// Where the value of each key stands, by the key in full.
    pub places: BTreeMap<String, Range<usize>>,
}

impl<'a, 'i> Table<'a, 'i> {
    /// The file itself.
    pub fn root(
        document: &'a DeTable<'i>,
        sections: Sections,
        base: PathBase<'a>,
        found: &'a mut Findings,
    ) -> Self {
        Self { path: String::new(), pattern: "", entries: document, sections, base, found }
    }

    /// How many problems there are so far.
    pub fn problems(&self) -> usize {
        self.found.problems.len()
    }

    /// A key's value.
    pub fn take<T>(&mut self, key: &'static str, form: &Form<T>) -> Field<T> {
        let Some(value) = self.entries.get(key) else { return Field::Missing };
        let path = self.full(key);
        self.found.places.insert(path.clone(), value.span());
        let mut cell = Cell { path, value, base: self.base, problems: &mut self.found.problems };
        let mut read = (form.read)(&mut cell);
        if let Some(bounds) = form.bounds {
            read = read.and_then(|read| bounds.hold(read, &mut cell));
        }
        read.map_or(Field::Wrong, |read| Field::Given(Spanned::new(value.span(), read)))
    }

    /// A table in this one; an empty one if it is not there.
    pub fn table<T>(&mut self, key: &'static str, read: fn(&mut Table<'_, '_>) -> T) -> T {
        let missing = DeTable::new();
        let entries = match self.entries.get(key).map(|value| (value.span(), value.get_ref())) {
            Some((_, DeValue::Table(entries))) => entries,
            Some((span, other)) => {
                self.found.problems.push(no_table(key, other, span));
                &missing
            }
            None => &missing,
        };
        self.inner(self.full(key), key, entries).read_whole(read)
    }

    /// The tables of a group, such as `[providers.NAME]`.
    pub fn named_tables<T>(
        &mut self,
        group: &'static str,
        pattern: &'static str,
        read: fn(&mut Table<'_, '_>) -> T,
    ) -> Vec<Named<T>> {
        let Some(value) = self.entries.get(group) else { return Vec::new() };
        let DeValue::Table(tables) = value.get_ref() else {
            self.found.problems.push(no_table(group, value.get_ref(), value.span()));
            return Vec::new();
        };
        let mut named = Vec::with_capacity(tables.len());
        for (name, value) in tables {
            let path = format!("{group}.{name}", name = shown(name.get_ref()));
            let DeValue::Table(entries) = value.get_ref() else {
                self.found.problems.push(
                    no_table(&path, value.get_ref(), value.span())
                        .help(format!("there are only tables in `[{group}]`: `[{group}.NAME]`")),
                );
                continue;
            };
            named.push(Named {
                name: Spanned::new(name.span(), name.get_ref().clone().into_owned()),
                table: self.inner(path, pattern, entries).read_whole(read),
            });
        }
        named
    }

    fn inner<'b>(
        &'b mut self,
        path: String,
        pattern: &'static str,
        entries: &'b DeTable<'i>,
    ) -> Table<'b, 'i> {
        Table { path, pattern, entries, sections: self.sections, base: self.base, found: self.found }
    }

    fn read_whole<T>(mut self, read: fn(&mut Table<'_, '_>) -> T) -> T {
        let read = read(&mut self);
        self.refuse_unknown();
        read
    }

    /// Reports every key that this table cannot have.
    pub fn refuse_unknown(self) {
        let keys = self.sections.keys_of(self.pattern);
        for (key, _) in self.entries.iter().filter(|(key, _)| !keys.contains(&key.get_ref().as_ref())) {
            let message = match self.path.as_str() {
                "" => format!("unknown key {}", quote(key.get_ref())),
                path => format!("unknown key {} in `[{path}]`", quote(key.get_ref())),
            };
            let help = self.meant(key.get_ref(), &keys);
            self.found.problems.push(Problem::error(key.span(), message).help(help));
        }
    }

    /// What was probably meant by an unknown key: a near one of `keys`, one of another table, or any of `keys`.
    fn meant(&self, key: &str, keys: &[&'static str]) -> Option<String> {
        if let Some(near) = nearest(key, keys.iter().copied()) {
            return Some(format!("did you mean `{near}`?"));
        }
        if self.sections.is_table(key) {
            return Some(format!("`[{key}]` is a table of its own"));
        }
        match self.sections.home(key, self.pattern) {
            Some(home) => Some(format!("`{key}` belongs in `[{}]`", home.pattern.replace('*', "NAME"))),
            None => known(keys.iter().copied()).map(|all| format!("there is {all}")),
        }
    }

    fn full(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

fn no_table(path: &str, value: &DeValue<'_>, span: Range<usize>) -> Problem {
    Problem::error(span, format!("`{path}` must be a table, not {}", type_name(value)))
}
