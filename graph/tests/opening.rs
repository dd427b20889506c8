//! What cannot be opened is named, and not a byte of it changes.
#![allow(clippy::unwrap_used)]

use postern_graph::{
    Graph, Settings,
    codec::Raw,
    schema::{Meta, ServerState, VERSION},
};
use std::path::{Path, PathBuf};

fn settings(path: &Path) -> Settings {
    Settings { path: path.to_owned(), block_cache: 1 << 20 }
}

fn files(path: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(path)
        .unwrap()
        .map(|file| file.unwrap().path())
        .map(|file| (file.clone(), std::fs::read(&file).unwrap()))
        .collect();
    files.sort();
    files
}

/// A database with data files, and more in its write-ahead log.
fn database(dir: &tempfile::TempDir, schema: u64) -> PathBuf {
    let path = dir.path().join("db");
    let graph = Graph::open(&settings(&path)).unwrap();
    for flushed in [true, false] {
        for n in 0..50 {
            let mut commit = graph.begin();
            commit.put::<ServerState>(&(format!("{flushed}{n}"),), &Raw(vec![b'x'; 100]));
            graph.commit(commit).unwrap();
        }
        if flushed {
            graph.flush().unwrap();
        }
    }
    let mut commit = graph.begin();
    commit.put::<Meta>(&("schema".to_owned(),), &Raw(schema.to_string().into_bytes()));
    graph.commit(commit).unwrap();
    path
}

#[track_caller]
fn refused(path: &Path, expected: &str) {
    let before = files(path);
    for _ in 0..2 {
        let error = Graph::open(&settings(path)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?}: {error}");
        assert!(error.contains(&path.display().to_string()), "{error}");
        let error = Graph::open_read_only(&settings(path)).unwrap_err().to_string();
        assert!(error.contains(expected), "{expected:?}: {error}");
    }
    let after = files(path);
    let names = |files: &[(PathBuf, Vec<u8>)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&after), names(&before));
    for ((name, before), (_, after)) in before.iter().zip(&after) {
        assert!(before == after, "{} was changed", name.display());
    }
}

fn find(path: &Path, wanted: impl Fn(&str) -> bool) -> PathBuf {
    // The largest: log and data files come in all sizes, down to none.
    let mut found: Vec<_> = files(path)
        .into_iter()
        .filter(|(file, _)| wanted(file.file_name().unwrap().to_str().unwrap()))
        .map(|(file, bytes)| (bytes.len(), file))
        .collect();
    found.sort();
    found.pop().unwrap().1
}

fn flip(file: &Path, at: impl Fn(usize) -> usize) {
    let mut bytes = std::fs::read(file).unwrap();
    let at = at(bytes.len());
    bytes[at] ^= 0x55;
    std::fs::write(file, bytes).unwrap();
}

#[test]
fn a_newer_schema() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION + 1);
    refused(&path, &format!("has schema version {}, and this program knows up to {VERSION}", VERSION + 1));
}

#[test]
fn a_missing_data_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    std::fs::remove_file(find(&path, |name| name.ends_with(".sst"))).unwrap();
    refused(&path, "is damaged");
}

#[test]
fn a_damaged_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    flip(&find(&path, |name| name.starts_with("MANIFEST")), |len| len / 2);
    refused(&path, "is damaged");
}

#[test]
fn a_damaged_log_of_writes() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    flip(&find(&path, |name| name.ends_with(".log")), |len| len / 2);
    refused(&path, "is damaged");
}

#[test]
fn a_missing_manifest() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    std::fs::remove_file(find(&path, |name| name.starts_with("MANIFEST"))).unwrap();
    refused(&path, "MANIFEST");
}

#[test]
fn another_programs_database() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let db = rocksdb::DB::open_default(&path).unwrap();
    db.put(b"a", b"b").unwrap();
    drop(db);
    refused(&path, "RocksDB database of another program");
}

#[test]
fn a_read_only_graph_reads_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    let before = files(&path);
    let graph = Graph::open_read_only(&settings(&path)).unwrap();
    for n in 0..50 {
        assert!(graph.has::<ServerState>(&(format!("false{n}"),)).unwrap());
    }
    let mut commit = graph.begin();
    commit.put::<ServerState>(&("new".to_owned(),), &Raw(Vec::new()));
    assert!(graph.commit(commit).is_err());
    drop(graph);
    assert!(files(&path) == before);
}

#[test]
fn a_torn_last_write_is_what_a_crash_leaves_and_opens() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    let log = find(&path, |name| name.ends_with(".log"));
    let bytes = std::fs::read(&log).unwrap();
    std::fs::write(&log, &bytes[..bytes.len() - 10]).unwrap();
    let graph = Graph::open(&settings(&path)).unwrap();
    for n in 0..50 {
        assert!(graph.has::<ServerState>(&(format!("false{n}"),)).unwrap());
    }
}

#[test]
fn a_creation_that_was_interrupted_is_begun_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    // As far as RocksDB gets before the first family of ours.
    drop(rocksdb::DB::open_default(&path).unwrap());
    drop(Graph::open(&settings(&path)).unwrap());

    let path = dir.path().join("earlier");
    std::fs::create_dir(&path).unwrap();
    for name in ["LOG", "LOCK", "IDENTITY", "000001.dbtmp"] {
        std::fs::write(path.join(name), "").unwrap();
    }
    let graph = Graph::open(&settings(&path)).unwrap();
    assert!(graph.has::<Meta>(&("schema".to_owned(),)).unwrap());
}

#[test]
fn a_database_without_its_first_file_is_not_taken_for_a_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = database(&dir, VERSION);
    std::fs::remove_file(path.join("CURRENT")).unwrap();
    refused(&path, "it holds other files and no database");
}
