//! The systemd units, as far as they can be judged without a manager; `tests/systemd/run` tries them under one.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const UNITS: [&str; 3] = ["batchd.service", "batchd.socket", "user/batchd.service"];

fn text(unit: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd").join(unit)).unwrap()
}

/// The values of `key`, in their order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

/// The units with this build's binary in place of the installed one.
fn units() -> (TempDir, Vec<PathBuf>) {
    let directory = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_batchd");
    let paths = UNITS.map(|name| {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let unit = text(name)
            .replace("=/usr/bin/batchd ", &format!("={binary} "))
            .replace("=batchd ", &format!("={binary} "));
        std::fs::write(&path, unit).unwrap();
        path
    });
    (directory, paths.to_vec())
}

/// Runs systemd's judge; `None`, said aloud, where there is none.
fn judge(command: &mut Command) -> Option<(Output, String)> {
    match command.output() {
        Ok(output) => {
            let said = [&output.stdout[..], b"\n", &output.stderr].concat();
            Some((output, String::from_utf8_lossy(&said).into_owned()))
        }
        Err(error) => {
            eprintln!("skipped: systemd-analyze does not run here: {error}");
            None
        }
    }
}

#[test]
fn systemd_has_nothing_to_say_of_the_units() {
    let (directory, paths) = units();
    for (arguments, units) in [(&["--system"][..], &paths[..2]), (&["--user"], &paths[2..])] {
        let mut verify = Command::new("systemd-analyze");
        verify.args(["verify", "--man=no"]).args(arguments).args(units);
        verify.env("XDG_RUNTIME_DIR", directory.path());
        let Some((output, said)) = judge(&mut verify) else { return };
        // Other units of the machine are not ours to judge.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("batchd")).collect();
        assert!(output.status.success() && ours.is_empty(), "{said}");
    }
}

#[test]
fn the_service_is_exposed_as_little_as_promised() {
    let (_directory, paths) = units();
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=true", "--threshold=12", "--no-pager"]).arg(&paths[0]);
    let Some((output, said)) = judge(&mut security) else { return };
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_units_name_only_what_the_program_has() {
    for name in ["batchd.service", "user/batchd.service"] {
        let unit = text(name);
        let commands = [values(&unit, "ExecStart"), values(&unit, "ExecReload")].concat();
        assert_eq!(commands.len(), 2, "{name}");
        for command in commands {
            let mut words = command.split_whitespace();
            assert!(words.next().unwrap().ends_with("batchd"), "{name}: {command}");
            let help = Command::new(env!("CARGO_BIN_EXE_batchd")).args(words).arg("--help").output().unwrap();
            assert!(help.status.success(), "{name}: {command}: {help:?}");
        }
        assert_eq!(values(&unit, "RestartPreventExitStatus"), ["65 70 77 78 243"], "{name}");
        assert_eq!(values(&unit, "Type"), ["notify"], "{name}");
        assert_eq!(
            (values(&unit, "MemoryMax"), values(&unit, "LimitCORE")),
            (vec!["1G"], vec!["0"]),
            "{name}"
        );
    }
}

/// A reload or a socket that is not in step with the program fails on somebody's machine, not here.
#[test]
fn socket_and_service_fit_each_other() {
    let (service, socket) = (text("batchd.service"), text("batchd.socket"));
    assert_eq!(values(&service, "Requires"), ["batchd.socket"]);
    assert_eq!(values(&service, "Group"), values(&socket, "SocketGroup"));
    assert_eq!(values(&socket, "ListenStream"), ["/run/batchd/batchd.sock"], "where clients look");
    assert_eq!(values(&socket, "SocketMode"), ["0660"]);
    assert_eq!(values(&service, "RuntimeDirectory"), [""; 0], "it would take the socket with it at the stop");
    assert_eq!(values(&service, "StateDirectoryMode"), ["0700"]);
}

/// A copy-and-paste of docs/install.md finds every file that it installs.
#[test]
fn the_page_installs_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/install.md")).unwrap();
    let named: Vec<&str> = page
        .split(|letter: char| letter.is_whitespace() || letter == '`')
        .filter(|word| word.starts_with("systemd/"))
        .map(|word| word.trim_end_matches(['.', ',', ':']))
        .collect();
    assert!(named.len() >= 5, "{named:?}");
    for path in named {
        assert!(root.join(path).exists(), "{path}");
    }
}

/// Both packages bring every unit, and name no file that is neither there nor made by packaging/build.
#[test]
fn the_packages_bring_what_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let manifest: toml::Table = toml::from_str(&manifest).unwrap();
    let packages = &manifest["package"]["metadata"];
    let build = std::fs::read_to_string(root.join("packaging/build")).unwrap();
    for package in ["deb", "generate-rpm"] {
        let assets = packages[package]["assets"].as_array().unwrap();
        let sources: Vec<&str> = assets
            .iter()
            .map(|asset| asset.get("source").or_else(|| asset.get(0)).unwrap().as_str().unwrap())
            .collect();
        for path in &sources {
            match path.strip_prefix("target/package-stage/") {
                Some(made) => {
                    let stem = made.split('.').next().unwrap();
                    assert!(
                        build.contains(&format!("$stage/{stem}")),
                        "{package}: packaging/build does not make {made}"
                    );
                }
                None => assert!(root.join(path).is_file(), "{package}: there is no {path}"),
            }
        }
        for unit in [
            "batchd.service",
            "batchd.socket",
            "user/batchd.service",
            "sysusers.d/batchd.conf",
            "tmpfiles.d/batchd.conf",
        ] {
            let unit = format!("systemd/{unit}");
            assert!(sources.contains(&unit.as_str()), "{package}: {unit} is left out");
        }
    }
}
