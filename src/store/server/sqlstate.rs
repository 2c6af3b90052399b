//! What the codes of PostgreSQL's errors mean to batchd.

/// What an error of the server comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The connection is gone or of no more use; another one may do.
    Lost,
    /// The server is starting or stopping, or follows another one that has not caught up.
    NotReady,
    /// The server has no room for another connection.
    NoConnection,
    /// Its disk or its memory is full.
    Full,
    /// It takes no writes: a standby, or set to read-only.
    ReadOnly,
    /// The same transaction may pass if it is done again: it lost against another, or waited too long for a lock.
    Again,
    /// It took longer than it may.
    TimedOut,
    /// The role or its password is refused.
    Credentials,
    /// The role may not do this.
    NoRights,
    /// The database is not there.
    NoDatabase,
    /// A table, a column or a schema is not there that the statement needs.
    NoTable,
    /// A value cannot be stored: it alone is to blame.
    BadValue,
    /// A setting that the connection asks for is refused.
    BadSetting,
    /// What is stored is damaged.
    Damaged,
    /// The server could not read or write its files.
    Io,
    /// A defect: of batchd, or of the server.
    Defect,
}

/// What the five characters of an SQLSTATE mean; a code that is not listed means what its class does.
pub fn meaning(code: &str) -> Meaning {
    match code {
        // Idle for too long in a transaction, or at all; ended by an administrator, a crash or a shutdown.
        "25P03" | "25P04" | "57P01" | "57P02" | "57P05" => Meaning::Lost,
        "57P03" => Meaning::NotReady,
        "57P04" | "3D000" => Meaning::NoDatabase,
        "53300" => Meaning::NoConnection,
        "25006" => Meaning::ReadOnly,
        "40001" | "40P01" | "40003" | "55P03" => Meaning::Again,
        "57014" => Meaning::TimedOut,
        "42501" => Meaning::NoRights,
        "3F000" | "42P01" | "42703" => Meaning::NoTable,
        // Settings that the server does not have, or values that they do not take.
        "42704" | "22023" | "55P02" => Meaning::BadSetting,
        "58000" | "58030" | "58P01" | "58P02" | "F0000" => Meaning::Io,
        _ => match code.get(..2) {
            Some("08") => Meaning::Lost,
            Some("22" | "23" | "54") => Meaning::BadValue,
            Some("28") => Meaning::Credentials,
            Some("40") => Meaning::Again,
            Some("53") => Meaning::Full,
            Some("58") => Meaning::Io,
            Some("XX") if code != "XX000" => Meaning::Damaged,
            _ => Meaning::Defect,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_codes_that_batchd_acts_on() {
        for (meaning_of, codes) in [
            (Meaning::Lost, &["08000", "08P01", "08003", "08006", "57P01", "57P02", "57P05", "25P03"][..]),
            (Meaning::NotReady, &["57P03"]),
            (Meaning::NoConnection, &["53300"]),
            (Meaning::Full, &["53000", "53100", "53200", "53400"]),
            (Meaning::ReadOnly, &["25006"]),
            (Meaning::Again, &["40001", "40P01", "55P03", "40002", "40003"]),
            (Meaning::TimedOut, &["57014"]),
            (Meaning::Credentials, &["28000", "28P01"]),
            (Meaning::NoRights, &["42501"]),
            (Meaning::NoDatabase, &["3D000", "57P04"]),
            (Meaning::NoTable, &["42P01", "3F000"]),
            (Meaning::BadValue, &["22P05", "22021", "23505", "23502", "54000"]),
            (Meaning::BadSetting, &["42704", "22023"]),
            (Meaning::Damaged, &["XX001", "XX002"]),
            (Meaning::Io, &["58030", "58P01"]),
            (Meaning::Defect, &["XX000", "42601", "0A000", "25P02"]),
        ] {
            for code in codes {
                assert_eq!(meaning(code), meaning_of, "{code}");
            }
        }
    }

    proptest! {
        #[test]
        fn whatever_a_server_sends_means_something(code in "\\PC{0,6}") {
            meaning(&code);
        }
    }
}
