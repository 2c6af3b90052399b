//! Statements are written once, for both kinds of database (`docs/design.md#sql`): words that only one of them knows stand
//! in the modules of that one alone.

use crate::layers::sources;
use std::path::Path;

/// What SQLite alone understands, in lower case; `?` and `:` begin what is bound.
const OF_FILES: [&str; 22] = [
    "iif(",
    " glob ",
    "instr(",
    "json_set(",
    "json_extract(",
    "json_group_",
    "json_remove(",
    "group_concat(",
    "ifnull(",
    "typeof(",
    "printf(",
    "strftime(",
    "unixepoch(",
    "insert or ",
    "update or ",
    "replace into ",
    "indexed by ",
    "limit -1",
    "last_insert_rowid",
    "pragma ",
    " is :",
    " is ?",
];

/// What PostgreSQL alone understands.
const OF_SERVERS: [&str; 12] = [
    "::bigint",
    "::json",
    "::text",
    "jsonb",
    " ilike ",
    "for update",
    "distinct on",
    "any(",
    "string_agg(",
    "generate_series(",
    "clock_timestamp(",
    "setval(",
];

#[test]
fn statements_are_in_words_that_both_databases_know() {
    let mut odd = Vec::new();
    for file in sources(Path::new("src/store")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let is_of_servers = file.starts_with("src/store/server");
        // Who uses SQLite's own connection asks no other database.
        let asks_both = file.ends_with("sql.rs") || file.ends_with("state.rs");
        let is_of_files = text.contains("use rusqlite::") && !asks_both;
        for (line, before, literal) in literals(&text) {
            let own = [".execute_batch(", ".query_row(", "Sql::File(_) => "];
            let is_of_files = is_of_files || own.iter().any(|own| before.ends_with(own));
            let is_of_servers = is_of_servers || before.ends_with("Sql::Server(_) => ");
            odd.extend(
                misplaced(literal, is_of_files, is_of_servers)
                    .map(|word| format!("{}:{line}: `{}`", file.display(), word.trim())),
            );
        }
    }
    assert!(odd.is_empty(), "only one kind of database knows these:\n{}", odd.join("\n"));
}

/// The words in a literal that its module's database, or one of both, does not know.
fn misplaced(literal: &str, is_of_files: bool, is_of_servers: bool) -> impl Iterator<Item = &'static str> {
    let literal = format!(" {} ", literal.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" "));
    let of_files = OF_FILES.iter().filter(move |_| !is_of_files);
    let of_servers = OF_SERVERS.iter().filter(move |_| !is_of_servers);
    of_files.chain(of_servers).copied().filter(move |word| {
        literal.match_indices(word).any(|(at, _)| {
            let before = literal[..at].chars().next_back();
            !word.starts_with(char::is_alphabetic)
                || before.is_none_or(|c| !c.is_alphanumeric() && !matches!(c, '_' | '.'))
        })
    })
}

#[test]
fn a_word_of_one_database_is_found_whatever_stands_around_it() {
    let found = |literal: &str| misplaced(literal, false, false).collect::<Vec<_>>();
    for (literal, word) in [
        ("SELECT iif(a, b, c) FROM t", "iif("),
        ("DELETE FROM t WHERE a IS\n   :b", " is :"),
        ("INSERT\n OR IGNORE INTO t VALUES (1)", "insert or "),
        ("SELECT a FROM t INDEXED BY i", "indexed by "),
        ("SELECT a FROM t LIMIT -1 OFFSET ?1", "limit -1"),
        ("SELECT last_insert_rowid()", "last_insert_rowid"),
        ("SELECT a FROM t WHERE b GLOB 'x*'", " glob "),
        ("UPDATE t SET a = json_set(a, '$.b', 1)", "json_set("),
        ("SELECT a FROM t FOR UPDATE", "for update"),
        ("SELECT a::bigint FROM t", "::bigint"),
    ] {
        assert_eq!(found(literal), [word], "{literal}");
    }
    assert_eq!(found("SELECT many(a), this_iif(b) FROM t WHERE c IS NULL"), [] as [&str; 0]);
    assert_eq!(misplaced("PRAGMA page_count", true, false).count(), 0);
    assert_eq!(misplaced("PRAGMA page_count", false, true).count(), 1);
    let source = r##"
        // "IIF(a)" in a comment
        let a = 'x'; let quote = '"'; let b = "one \" two";
        let c = r#"raw "text" here"#;
        fn f<'a>() { g(r"no\escape") }
        #[cfg(test)]
        mod tests { const D: &str = "PRAGMA x"; }
    "##;
    let texts: Vec<&str> = literals(source).into_iter().map(|(.., text)| text).collect();
    assert_eq!(texts, [r#"one \" two"#, r#"raw "text" here"#, r"no\escape"]);
    assert_eq!(literals(source)[0].0, 3, "with the line where it begins");
}

/// The string literals of a source, each with its line and all code before it, but those of comments and of tests, which
/// stand last.
fn literals(text: &str) -> Vec<(usize, &str, &str)> {
    let tests =
        text.find("#[cfg(test)]\nmod tests {").or_else(|| text.find("#[cfg(test)]\n        mod tests {"));
    let code = &text[..tests.unwrap_or(text.len())];
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(rest) = code.get(at..).filter(|rest| !rest.is_empty()) {
        let (skipped, literal) = next(rest, code[..at].chars().next_back());
        if let Some((from, to)) = literal {
            let line = code[..at].matches('\n').count() + 1;
            found.push((line, &code[..at], &rest[from..to]));
        }
        at += skipped;
    }
    found
}

/// How long the first piece of a source is, and where in it the text of a literal stands, if it is one.
fn next(rest: &str, before: Option<char>) -> (usize, Option<(usize, usize)>) {
    let first = rest.chars().next().map_or(1, char::len_utf8);
    if rest.starts_with("//") {
        return (rest.find('\n').unwrap_or(rest.len()), None);
    }
    if rest.starts_with('\'') {
        // A character; otherwise it is a lifetime.
        let character = ["'\\''", "'\"'", "'\\\\'"].iter().find(|character| rest.starts_with(**character));
        return (character.map_or(1, |character| character.len()), None);
    }
    let is_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    if rest.starts_with('r') && !is_word {
        let marks = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
        if rest[1 + marks..].starts_with('"') {
            let from = marks + 2;
            let end = format!("\"{}", "#".repeat(marks));
            let to = rest[from..].find(&end).map_or(rest.len(), |at| from + at);
            return ((to + end.len()).min(rest.len()), Some((from, to)));
        }
    }
    if let Some(inside) = rest.strip_prefix('"') {
        let mut escaped = false;
        let end = inside.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let to = end.map_or(rest.len(), |at| at + 1);
        return ((to + 1).min(rest.len()), Some((1, to)));
    }
    (first, None)
}
