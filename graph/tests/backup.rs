//! Backups of a database in use, from inside and from another process.
#![allow(clippy::unwrap_used)]

use postern_graph::{
    Graph, Settings, backup,
    codec::Raw,
    doctor,
    schema::{AccountData, MediaChunks, ServerState},
};
use postern_graph::{RoomNum, Seq, UserNum};
use std::{
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Set for the process that plays the server: where its database is.
const SERVE: &str = "POSTERN_TEST_SERVE";

fn open(path: &Path) -> Arc<Graph> {
    Graph::open(&Settings { path: path.to_owned(), block_cache: 8 << 20 }).unwrap()
}

struct Place {
    _dir: tempfile::TempDir,
    database: PathBuf,
    backups: PathBuf,
    targets: PathBuf,
}

fn place() -> Place {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let (database, backups, targets) = (at("db"), at("backups"), at("restored"));
    Place { _dir: dir, database, backups, targets }
}

impl Place {
    /// Restores the newest backup somewhere new and opens it.
    fn restored(&self) -> Arc<Graph> {
        let target = self.targets.join(format!("{:?}", Instant::now()));
        backup::restore(&self.backups, &target).unwrap();
        let findings = doctor::check(&target).unwrap();
        assert!(findings.is_healthy(), "{findings:#?}");
        open(&target)
    }
}

/// Writes number `n`: small, and now and then something that fills files.
async fn write(graph: &Graph, n: u64) {
    let mut commit = graph.begin();
    let noise: Vec<u8> =
        (0..2000_u64).flat_map(|i| (i * n).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()).collect();
    commit
        .put::<AccountData>(&(UserNum(n), RoomNum(1), "n".to_owned()), &(Seq(n), Raw(noise[..64].to_vec())));
    if n.is_multiple_of(7) {
        let key = ("h".to_owned(), n.to_string(), String::new(), 0);
        commit.put::<MediaChunks>(&key, &Raw(noise.repeat(4)));
    }
    graph.commit_durably(commit).await.unwrap();
    if n.is_multiple_of(100) {
        graph.flush().unwrap();
    }
    if n.is_multiple_of(500) {
        graph.compact().unwrap();
    }
}

fn assert_has_all_up_to(graph: &Graph, n: u64) {
    for n in 1..=n {
        assert!(
            graph.has::<AccountData>(&(UserNum(n), RoomNum(1), "n".to_owned())).unwrap(),
            "{n} is missing"
        );
        if n.is_multiple_of(7) {
            let key = ("h".to_owned(), n.to_string(), String::new(), 0);
            assert_eq!(graph.get::<MediaChunks>(&key).unwrap().unwrap().0.len(), 64_000);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_of_a_graph_in_use_has_everything_acknowledged_before_it_began() {
    let place = place();
    let graph = open(&place.database);
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = tokio::spawn({
        let (graph, stop, acknowledged) = (graph.clone(), stop.clone(), acknowledged.clone());
        async move {
            let mut n = 0;
            while !stop.load(Ordering::Acquire) {
                n += 1;
                write(&graph, n).await;
                acknowledged.store(n, Ordering::Release);
            }
        }
    });
    for number in 1..=4 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let before = acknowledged.load(Ordering::Acquire);
        let report = graph.back_up(&place.backups).unwrap();
        assert_eq!(report.number, number);
        assert!(before > 0);
        assert_has_all_up_to(&place.restored(), before);
    }
    stop.store(true, Ordering::Release);
    writer.await.unwrap();
    assert_eq!(backup::verify(&place.backups).unwrap(), Vec::<String>::new());
}

/// Not a test of its own: the server of the test below, in a process of its own.
#[tokio::test]
async fn the_process_that_plays_the_server() {
    let Ok(path) = std::env::var(SERVE) else { return };
    let graph = open(Path::new(&path));
    for n in 1.. {
        write(&graph, n).await;
        println!("\nacknowledged {n}");
    }
}

#[test]
fn another_process_can_back_up_while_the_server_writes() {
    let place = place();
    let mut server = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_process_that_plays_the_server", "--nocapture"])
        .env(SERVE, &place.database)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let acknowledged = Arc::new(AtomicU64::new(0));
    let reader = std::thread::spawn({
        let (lines, acknowledged) =
            (BufReader::new(server.stdout.take().unwrap()).lines(), acknowledged.clone());
        move || {
            for line in lines.map_while(Result::ok) {
                if let Some(n) = line.strip_prefix("acknowledged ") {
                    acknowledged.store(n.parse().unwrap(), Ordering::Release);
                }
            }
        }
    });
    let started = Instant::now();
    while acknowledged.load(Ordering::Acquire) < 50 {
        assert!(started.elapsed() < Duration::from_secs(60), "the server does not get going");
        std::thread::sleep(Duration::from_millis(10));
    }
    for _ in 0..5 {
        let before = acknowledged.load(Ordering::Acquire);
        backup::back_up_from_outside(&place.database, &place.backups).unwrap();
        assert_has_all_up_to(&place.restored(), before);
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(server.try_wait().unwrap().is_none(), "the server died of its backup");
    server.kill().unwrap();
    server.wait().unwrap();
    reader.join().unwrap();
    // And when nobody has it open.
    let before = acknowledged.load(Ordering::Acquire);
    backup::back_up_from_outside(&place.database, &place.backups).unwrap();
    assert_has_all_up_to(&place.restored(), before);
    assert_eq!(backup::verify(&place.backups).unwrap(), Vec::<String>::new());
    assert_has_all_up_to(&open(&place.database), before);
}

#[tokio::test]
async fn a_second_backup_copies_only_what_is_new() {
    let place = place();
    let graph = open(&place.database);
    for n in 1..200 {
        write(&graph, n).await;
    }
    graph.flush().unwrap();
    let first = graph.back_up(&place.backups).unwrap();
    assert_eq!((first.number, first.new_files), (1, first.files));
    write(&graph, 200).await;
    let second = graph.back_up(&place.backups).unwrap();
    assert!(second.bytes > 1_000_000, "{second:?}");
    assert!(second.new_bytes < second.bytes / 4, "{second:?}");
    let third = backup::back_up_from_outside(&place.database, &place.backups).unwrap();
    assert!(third.new_bytes < third.bytes / 4, "{third:?}");
    assert_eq!(third.seq, second.seq);
    let listed: Vec<u32> = backup::list(&place.backups).unwrap().iter().map(|info| info.number).collect();
    assert_eq!(listed, [1, 2, 3]);
    // Nothing of it stays with the database.
    assert!(!place.database.join("backup-staging").exists());

    let old = place.targets.join("old");
    backup::restore_number(&place.backups, 1, &old).unwrap();
    let old = open(&old);
    assert_has_all_up_to(&old, 199);
    assert!(!old.has::<AccountData>(&(UserNum(200), RoomNum(1), "n".to_owned())).unwrap());

    backup::prune(&place.backups, 1).unwrap();
    assert_eq!(backup::list(&place.backups).unwrap().len(), 1);
    assert_has_all_up_to(&place.restored(), 200);
    assert_eq!(backup::verify(&place.backups).unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn damage_to_a_backup_is_found_and_never_restored() {
    let place = place();
    let graph = open(&place.database);
    for n in 1..50 {
        write(&graph, n).await;
    }
    graph.back_up(&place.backups).unwrap();
    let files: Vec<PathBuf> =
        std::fs::read_dir(place.backups.join("files")).unwrap().map(|file| file.unwrap().path()).collect();
    for file in files {
        let good = std::fs::read(&file).unwrap();
        if good.is_empty() {
            continue;
        }
        let mut bad = good.clone();
        bad[good.len() / 2] ^= 1;
        std::fs::write(&file, &bad).unwrap();
        let wrong = backup::verify(&place.backups).unwrap();
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("has other content"), "{wrong:?}");
        let target = place.targets.join(file.file_name().unwrap());
        let error = backup::restore(&place.backups, &target).unwrap_err();
        assert!(error.to_string().contains("it is damaged"), "{error}");
        assert!(Graph::open(&Settings { path: target, block_cache: 1 << 20 }).is_err());
        std::fs::write(&file, &good).unwrap();
    }
    assert_has_all_up_to(&place.restored(), 49);
    let catalogue = place.backups.join("backups/000001.json");
    let text = std::fs::read_to_string(&catalogue).unwrap();
    std::fs::write(&catalogue, text.replacen("\"seq\":", "\"seq\": ", 1)).unwrap();
    let error = backup::list(&place.backups).unwrap_err();
    assert!(error.to_string().contains("does not match its checksum"), "{error}");
}

#[tokio::test]
async fn nothing_is_overwritten_by_a_backup_or_a_restore() {
    let place = place();
    let graph = open(&place.database);
    let mut commit = graph.begin();
    commit.put::<ServerState>(&("x".to_owned(),), &Raw(b"y".to_vec()));
    graph.commit_durably(commit).await.unwrap();

    std::fs::create_dir(&place.targets).unwrap();
    std::fs::write(place.targets.join("letter.txt"), "dear").unwrap();
    let error = graph.back_up(&place.targets).unwrap_err();
    assert!(error.to_string().contains("it holds other files"), "{error}");
    graph.back_up(&place.backups).unwrap();
    let error = backup::restore(&place.backups, &place.targets).unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
    let error = backup::restore(&place.backups, &place.database).unwrap_err();
    assert!(error.to_string().contains("it is not empty"), "{error}");
    assert_eq!(std::fs::read_dir(&place.targets).unwrap().count(), 1);
    assert_eq!(graph.get::<ServerState>(&("x".to_owned(),)).unwrap(), Some(Raw(b"y".to_vec())));

    let error = backup::back_up_from_outside(&place.targets, &place.backups).unwrap_err();
    assert!(error.to_string().contains("is not a Postern database"), "{error}");
    let error = backup::list(&place.targets).unwrap_err();
    assert!(error.to_string().contains("no directory of backups"), "{error}");
}

#[tokio::test]
async fn backups_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let place = place();
    let graph = open(&place.database);
    write(&graph, 1).await;
    graph.back_up(&place.backups).unwrap();
    backup::restore(&place.backups, &place.targets).unwrap();
    let mut waiting = vec![place.backups.clone(), place.targets.clone()];
    while let Some(path) = waiting.pop() {
        let meta = std::fs::metadata(&path).unwrap();
        assert_eq!(meta.permissions().mode() & 0o077, 0, "{}", path.display());
        if meta.is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
}
