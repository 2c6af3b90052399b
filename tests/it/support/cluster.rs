//! A PostgreSQL server of the tests' own: its files, its programs, and the process that keeps it.

use crate::world::until_within;
use nix::unistd::{Uid, User, chown};
use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// The programs of a server, and how they are run.
pub struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    /// The user that runs them; `None`: this process's, who is not root, whom the server refuses.
    user: Option<User>,
    /// Where they see all files, if not where this process does.
    root: Option<PathBuf>,
}

impl Programs {
    /// Those that are installed here, or what keeps them from being used.
    pub fn find() -> Result<Self, String> {
        let (Some(initdb), Some(postgres)) = (program("initdb"), program("postgres")) else {
            return Err("there is no PostgreSQL server here (`apt-get install postgresql`)".to_owned());
        };
        if let Some(root) = root() {
            let user = User::from_name("nobody").ok().flatten().filter(|_| Uid::effective().is_root());
            let user = user.ok_or("only root can run the PostgreSQL of another root directory")?;
            return Ok(Self { initdb, postgres, user: Some(user), root: Some(root) });
        }
        if !Uid::effective().is_root() {
            return Ok(Self { initdb, postgres, user: None, root: None });
        }
        let user = ["postgres", "nobody"].iter().find_map(|name| User::from_name(name).ok().flatten());
        let user = user.ok_or("root may not run PostgreSQL, and there is neither `postgres` nor `nobody`")?;
        if Command::new("setpriv").arg("--version").output().is_err() {
            return Err(
                "root may not run PostgreSQL, and there is no `setpriv` (`apt-get install util-linux`)"
                    .to_owned(),
            );
        }
        Ok(Self { initdb, postgres, user: Some(user), root: None })
    }

    /// The words that run `program` as the right user.
    fn words(&self, program: &Path) -> Vec<String> {
        let program = self.seen(program).display().to_string();
        let Some(user) = &self.user else { return vec![program] };
        if let Some(root) = &self.root {
            let user = format!("--userspec={}:{}", user.uid, user.gid);
            return vec!["chroot".to_owned(), user, root.display().to_string(), program];
        }
        let (uid, gid) = (format!("--reuid={}", user.uid), format!("--regid={}", user.gid));
        vec!["setpriv".to_owned(), uid, gid, "--clear-groups".to_owned(), "--".to_owned(), program]
    }

    /// A path as the programs see it.
    fn seen(&self, path: &Path) -> PathBuf {
        let inside = self.root.as_ref().and_then(|root| path.strip_prefix(root).ok());
        inside.map_or_else(|| path.to_owned(), |inside| Path::new("/").join(inside))
    }

    /// Where a server may have its files.
    fn room(&self) -> PathBuf {
        self.root.as_ref().map_or_else(std::env::temp_dir, |root| root.join("tmp"))
    }
}

/// Gives `path` to the user that runs the server.
fn give(user: Option<&User>, path: &Path) {
    if let Some(user) = user {
        chown(path, Some(user.uid), Some(user.gid)).unwrap();
    }
}

/// A program of PostgreSQL's, if it is installed here.
pub fn program(name: &str) -> Option<PathBuf> {
    directories().into_iter().map(|directory| directory.join(name)).find(|path| path.is_file())
}

/// A root directory that has another PostgreSQL than this machine: `tests/on-postgres` makes one.
fn root() -> Option<PathBuf> {
    std::env::var_os("BATCHD_POSTGRES_ROOT").filter(|root| !root.is_empty()).map(PathBuf::from)
}

/// What `BATCHD_POSTGRES_BIN` names, `$PATH`, and where distributions put what belongs to one version: the newest first.
fn directories() -> Vec<PathBuf> {
    let root = root();
    let versions = root.clone().unwrap_or_else(|| PathBuf::from("/")).join("usr/lib/postgresql");
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(versions)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            Some((path.file_name()?.to_str()?.parse().ok()?, path.join("bin")))
        })
        .collect();
    versions.sort_by(|one, other| other.cmp(one));
    let path = std::env::var_os("PATH").filter(|_| root.is_none()).unwrap_or_default();
    let wanted = std::env::var_os("BATCHD_POSTGRES_BIN").filter(|_| root.is_none()).map(PathBuf::from);
    wanted
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(versions.into_iter().map(|(_, path)| path))
        .collect()
}

/// A server and its keeper; both end with this value, and with this process however it ends.
pub struct Cluster {
    pub directory: PathBuf,
    pub port: u16,
    user: Option<User>,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    child: Child,
    /// Closed, it ends everything.
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Cluster {
    /// Makes the files of a server whose superuser `postgres` has `password`, with `settings` (`name = value`) in its
    /// configuration, and starts it.
    pub fn start(programs: &Programs, password: &str, settings: &[String]) -> Self {
        let directory =
            tempfile::Builder::new().prefix("batchd-pg-").tempdir_in(programs.room()).unwrap().keep();
        std::fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
        let word = directory.join("password");
        std::fs::write(&word, password).unwrap();
        for path in [&directory, &word] {
            give(programs.user.as_ref(), path);
        }
        let data = directory.join("data");
        let words = programs.words(&programs.initdb);
        let made = Command::new(&words[0])
            .args(&words[1..])
            .args(["--no-sync", "--username=postgres", "--encoding=UTF8", "--locale=C"])
            .args(["--auth=scram-sha-256", "--pwfile"])
            .arg(programs.seen(&word))
            .arg("--pgdata")
            .arg(programs.seen(&data))
            .current_dir("/")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let usual = [
            format!("port = {port}"),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", programs.seen(&directory).display()),
            "max_connections = 150".to_owned(),
            "shared_buffers = 32MB".to_owned(),
            // Two minutes would hide that somebody relies on being told.
            "authentication_timeout = 10s".to_owned(),
            "fsync = on".to_owned(),
        ];
        let configuration = data.join("postgresql.auto.conf");
        let lines: Vec<String> = usual.iter().chain(settings).cloned().collect();
        std::fs::write(&configuration, lines.join("\n") + "\n").unwrap();
        give(programs.user.as_ref(), &configuration);
        let mut server = programs.words(&programs.postgres);
        server.extend(["-D".to_owned(), programs.seen(&data).display().to_string()]);
        let mut child = Command::new("/bin/sh")
            .args(["-c", include_str!("keeper.sh"), "keeper"])
            .arg(&directory)
            .args(server)
            .current_dir("/")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            // What a terminal sends to the tests is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let keeper = Mutex::new(Keeper { child, orders, answers });
        let cluster = Self { directory, port, user: programs.user.clone(), keeper };
        cluster.order("start");
        cluster
    }

    /// Has the keeper do this, and waits until it is done.
    pub fn order(&self, order: &str) {
        let mut keeper = self.keeper.lock().unwrap();
        writeln!(keeper.orders.as_mut().unwrap(), "{order}").unwrap();
        let mut answer = String::new();
        keeper.answers.read_line(&mut answer).unwrap();
        assert_eq!(answer, "done\n", "{}", self.log());
    }

    /// Puts a file that only the server may read into its directory.
    pub fn put(&self, name: &str, content: &str) -> PathBuf {
        let path = self.directory.join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        give(self.user.as_ref(), &path);
        path
    }

    /// Waits until something listens.
    pub fn wait_until_it_listens(&self) {
        until_within(Duration::from_mins(1), "PostgreSQL listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.join("log")).unwrap_or_default()
    }

    /// The keeper's process, whose end is the server's too.
    pub fn keeper(&self) -> u32 {
        self.keeper.lock().unwrap().child.id()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let keeper = self.keeper.get_mut().unwrap();
        drop(keeper.orders.take());
        let _ = keeper.child.wait();
    }
}
