//! The catalogue of fault cases (`docs/delivery.md#fault-catalogue`): each is proved by a test that carries its number, or the catalogue says
//! why it is not.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The families that this version proves, with how many cases each has.
const FAMILIES: [(char, u32); 9] =
    [('a', 17), ('b', 20), ('c', 17), ('d', 20), ('e', 6), ('f', 15), ('g', 11), ('h', 16), ('j', 7)];

/// The cases that the name of a test begins with: `b3_b10_refusals`, `b10_to_b12_the_status_line`.
fn cases_of(name: &str) -> Vec<String> {
    let mut cases: Vec<String> = Vec::new();
    let mut up_to = false;
    for word in name.split('_') {
        let case = word.strip_prefix(|c: char| FAMILIES.iter().any(|(family, _)| *family == c));
        let number: Option<u32> = case.and_then(|number| number.parse().ok());
        match number {
            Some(number) if up_to => {
                let first: u32 = cases.last().unwrap()[1..].parse().unwrap();
                cases.extend((first + 1..=number).map(|number| format!("{}{number}", &word[..1])));
                up_to = false;
            }
            Some(_) => cases.push(word.to_owned()),
            None if word == "to" && !cases.is_empty() => up_to = true,
            None => break,
        }
    }
    cases
}

/// The functions of a file that run as two tests each, on a file and on a server.
pub fn run_on_both(text: &str) -> BTreeSet<&str> {
    let lists = text.split("on_both! {").skip(1).filter_map(|rest| rest.split_once('}'));
    let names = lists.flat_map(|(list, _)| list.split(|c: char| !(c.is_alphanumeric() || c == '_')));
    names.filter(|name| !name.is_empty()).collect()
}

/// The tests of each case, by name.
fn proved() -> BTreeMap<String, Vec<String>> {
    let mut proved: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for directory in ["src", "tests"] {
        for file in crate::layers::sources(Path::new(directory)) {
            let text = std::fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().map(str::trim_start).collect();
            let on_both = run_on_both(&text);
            for (at, line) in lines.iter().enumerate() {
                let Some((_, rest)) =
                    line.split_once("fn ").filter(|(before, _)| matches!(*before, "" | "async "))
                else {
                    continue;
                };
                let attribute = lines[..at].iter().rev().take_while(|line| line.starts_with('#')).next();
                let name = rest.split(['(', '<']).next().unwrap();
                if attribute.is_none_or(|attribute| !attribute.contains("test")) && !on_both.contains(name) {
                    continue;
                }
                for case in cases_of(name) {
                    proved.entry(case).or_default().push(name.to_owned());
                }
            }
        }
    }
    proved
}

#[test]
fn every_case_is_proved_or_left_out_with_a_reason() {
    let proved = proved();
    let readme = std::fs::read_to_string("docs/delivery.md").unwrap();
    let left_out: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split_once(" | "))
        .flat_map(|(cases, _)| cases.split(", ").map(str::to_ascii_lowercase).collect::<Vec<_>>())
        .filter(|case| cases_of(case) == [case.clone()])
        .collect();
    let mut missing = Vec::new();
    for (family, count) in FAMILIES {
        for number in 1..=count {
            let case = format!("{family}{number}");
            match (proved.contains_key(&case), left_out.contains(&case)) {
                (false, false) => missing.push(case),
                (true, true) => panic!("{case} is proved, and docs/delivery.md leaves it out"),
                _ => {}
            }
        }
    }
    assert!(missing.is_empty(), "neither proved nor left out: {}", missing.join(", "));
    let known = |case: &String| {
        FAMILIES.iter().any(|(family, count)| {
            case.starts_with(*family) && case[1..].parse().is_ok_and(|number: u32| number <= *count)
        })
    };
    let unknown: Vec<&String> = proved.keys().chain(&left_out).filter(|case| !known(case)).collect();
    assert!(unknown.is_empty(), "no such cases: {unknown:?}");
}

#[test]
fn a_name_tells_its_cases() {
    assert_eq!(cases_of("b3_b10_refusals_and_redirects"), ["b3", "b10"]);
    assert_eq!(cases_of("b10_to_b12_the_status_line_decides"), ["b10", "b11", "b12"]);
    assert_eq!(cases_of("a_webhook_that_fails"), [] as [&str; 0]);
    assert_eq!(cases_of("e1"), ["e1"]);
}
