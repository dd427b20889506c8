//! Files through the store: what is visible when, what a broken upload leaves, who may do what.

#![allow(clippy::unwrap_used)]

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use postern_graph::{
    Graph, UserNum,
    schema::{Media as MediaRecords, MediaChunks},
};
use postern_media::{Error, Media, Method, Settings, Size, limits::PIECE_BYTES};
use std::{io::Cursor, path::Path, sync::Arc, time::Duration};

const SERVER: &str = "here.example";
const ANNA: UserNum = UserNum(1);
const BEN: UserNum = UserNum(2);

fn settings() -> Settings {
    Settings {
        max_upload_bytes: 4 << 20,
        max_image_pixels: 1 << 20,
        dynamic_thumbnails: false,
        pending_upload_lifetime_ms: 60_000,
        max_pending_uploads: 2,
    }
}

fn open(path: &Path, settings: Settings) -> Arc<Media> {
    let graph =
        Graph::open(&postern_graph::Settings { path: path.to_owned(), block_cache: 1 << 20 }).unwrap();
    let media = Media::new(graph, SERVER, settings);
    media.sweep().unwrap();
    Arc::new(media)
}

struct World {
    media: Arc<Media>,
    graph: Arc<Graph>,
    _directory: tempfile::TempDir,
}

fn world(settings: Settings) -> World {
    let directory = tempfile::tempdir().unwrap();
    let graph =
        Graph::open(&postern_graph::Settings { path: directory.path().join("graph"), block_cache: 1 << 20 })
            .unwrap();
    let media = Arc::new(Media::new(graph.clone(), SERVER, settings));
    World { media, graph, _directory: directory }
}

impl World {
    fn stored(&self) -> (usize, usize) {
        let records = self.graph.scan::<MediaRecords, _>(&()).iter().count();
        (records, self.graph.scan::<MediaChunks, _>(&()).iter().count())
    }
}

fn bytes(n: usize) -> Vec<u8> {
    (0..n).map(|i| (i % 251) as u8).collect()
}

async fn put(media: &Arc<Media>, content: &[u8]) -> String {
    let mut upload = media.begin(ANNA, None).unwrap();
    // In uneven parts, as a network brings them.
    for part in content.chunks(70_001) {
        upload.push(part).unwrap();
    }
    upload.finish(Some("image/png".to_owned()), Some("a.png".to_owned())).await.unwrap()
}

fn read(media: &Arc<Media>, id: &str, from: u64, to: u64) -> Vec<u8> {
    media.read(SERVER, id, from..to).map(Result::unwrap).collect::<Vec<_>>().concat()
}

#[tokio::test]
async fn what_was_uploaded_comes_back_whole_and_in_any_part() {
    let world = world(settings());
    for size in [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 17] {
        let content = bytes(size);
        let id = put(&world.media, &content).await;
        let record = world.media.record(SERVER, &id).unwrap();
        assert_eq!((record.size, record.uploader), (size as u64, ANNA));
        assert_eq!(record.content_type.as_deref(), Some("image/png"));
        assert_eq!(record.file_name.as_deref(), Some("a.png"));
        assert_eq!(read(&world.media, &id, 0, size as u64), content);
        for (from, to) in
            [(0, 1), (size / 3, size / 2), (PIECE_BYTES - 1, PIECE_BYTES + 1), (size - size.min(5), size)]
        {
            let (from, to) = (from.min(size), to.min(size));
            assert_eq!(read(&world.media, &id, from as u64, to as u64), content[from..to]);
        }
    }
}

#[tokio::test]
async fn the_hash_of_the_bytes_is_kept() {
    let world = world(settings());
    let id = put(&world.media, b"abc").await;
    assert_eq!(
        world.media.record(SERVER, &id).unwrap().sha256,
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

#[tokio::test]
async fn an_upload_is_not_there_before_it_is_finished_and_leaves_nothing_if_it_breaks_off() {
    let world = world(settings());
    let mut upload = world.media.begin(ANNA, None).unwrap();
    upload.push(&bytes(3 * PIECE_BYTES)).unwrap();
    assert!(matches!(world.media.record(SERVER, upload.id()), Err(Error::NotFound)));
    assert_ne!(world.stored(), (0, 0));
    drop(upload);
    assert_eq!(world.stored(), (0, 0));
}

#[tokio::test]
async fn a_finished_upload_leaves_no_note_behind() {
    let world = world(settings());
    put(&world.media, &bytes(3 * PIECE_BYTES)).await;
    assert_eq!(world.stored(), (1, 3));
}

#[tokio::test]
async fn too_large_a_file_is_refused_while_it_comes_and_leaves_nothing() {
    let world = world(settings());
    let mut upload = world.media.begin(ANNA, None).unwrap();
    let part = bytes(1 << 20);
    let refused = (0..5).find_map(|_| upload.push(&part).err());
    assert!(matches!(refused, Some(Error::TooLarge(limit)) if limit == 4 << 20));
    drop(upload);
    assert_eq!(world.stored(), (0, 0));
}

#[tokio::test]
async fn what_a_crash_cut_off_is_removed_at_the_next_start_and_ids_wait_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("graph");
    let (kept, waiting, cut);
    {
        let media = open(&path, settings());
        kept = put(&media, &bytes(2 * PIECE_BYTES)).await;
        waiting = media.create(ANNA).await.unwrap().0;
        let mut to_waiting = media.begin(ANNA, Some(&waiting)).unwrap();
        to_waiting.push(&bytes(2 * PIECE_BYTES)).unwrap();
        let mut fresh = media.begin(ANNA, None).unwrap();
        fresh.push(&bytes(2 * PIECE_BYTES)).unwrap();
        cut = fresh.id().to_owned();
        // A crash runs no destructors; the copy is what it leaves.
        let snapshot = directory.path().join("crashed");
        copy_after_sync(&media, &path, &snapshot).await;
    }
    let media = open(&directory.path().join("crashed"), settings());
    assert_eq!(read(&media, &kept, 0, 10), bytes(10));
    assert!(matches!(media.record(SERVER, &cut), Err(Error::NotFound)));
    assert!(matches!(media.record(SERVER, &waiting), Err(Error::NotYetUploaded)));
    assert!(media.read(SERVER, &cut, 0..10).any(|piece| piece.is_err()));
    let mut again = media.begin(ANNA, Some(&waiting)).unwrap();
    again.push(b"second").unwrap();
    again.finish(None, None).await.unwrap();
    assert_eq!(read(&media, &waiting, 0, 6), b"second");
}

async fn copy_after_sync(media: &Arc<Media>, from: &Path, to: &Path) {
    // Something durable comes after everything before it.
    put(media, b"last").await;
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name() != "LOCK" {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[tokio::test]
async fn only_who_made_an_id_uploads_to_it_and_only_once() {
    let world = world(settings());
    let media = &world.media;
    let (id, until) = media.create(ANNA).await.unwrap();
    assert!(until > 0);
    assert!(matches!(media.begin(BEN, Some(&id)), Err(Error::NotYours)));
    assert!(matches!(media.begin(ANNA, Some("unknown")), Err(Error::NotFound)));
    let mut first = media.begin(ANNA, Some(&id)).unwrap();
    assert!(matches!(media.begin(ANNA, Some(&id)), Err(Error::CannotOverwrite)));
    assert!(matches!(media.record(SERVER, &id), Err(Error::NotYetUploaded)));
    first.push(&bytes(PIECE_BYTES + 5)).unwrap();
    drop(first);
    // What broke off may be tried again.
    let mut second = media.begin(ANNA, Some(&id)).unwrap();
    second.push(b"there").unwrap();
    assert_eq!(second.finish(None, None).await.unwrap(), id);
    assert_eq!(read(media, &id, 0, 5), b"there");
    assert!(matches!(media.begin(ANNA, Some(&id)), Err(Error::CannotOverwrite)));
    assert!(matches!(media.begin(BEN, Some(&id)), Err(Error::NotYours)));
    assert_eq!(world.stored(), (1, 1));
}

#[tokio::test]
async fn ids_that_wait_are_bounded_and_those_nobody_uploaded_to_expire() {
    let world = world(Settings { pending_upload_lifetime_ms: 150, ..settings() });
    let media = &world.media;
    let (first, _) = media.create(ANNA).await.unwrap();
    media.create(ANNA).await.unwrap();
    assert!(matches!(media.create(ANNA).await, Err(Error::TooManyPending)));
    media.create(BEN).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(matches!(media.record(SERVER, &first), Err(Error::NotFound)));
    assert!(matches!(media.begin(ANNA, Some(&first)), Err(Error::NotFound)));
    media.create(ANNA).await.unwrap();
    assert_eq!(world.stored(), (1, 0), "expired ids are gone");
}

#[tokio::test]
async fn who_downloads_early_waits_for_the_upload() {
    let world = world(settings());
    let media = &world.media;
    let (id, _) = media.create(ANNA).await.unwrap();
    let soon = media.record_within(SERVER, &id, Duration::from_millis(50)).await;
    assert!(matches!(soon, Err(Error::NotYetUploaded)));
    let waits = {
        let (media, id) = (media.clone(), id.clone());
        tokio::spawn(async move { media.record_within(SERVER, &id, Duration::from_secs(30)).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let mut upload = media.begin(ANNA, Some(&id)).unwrap();
    upload.push(b"x").unwrap();
    upload.finish(None, None).await.unwrap();
    let record = tokio::time::timeout(Duration::from_secs(5), waits).await.unwrap().unwrap().unwrap();
    assert_eq!(record.size, 1);
}

#[tokio::test]
async fn no_name_leads_to_what_is_outstanding() {
    let world = world(settings());
    let (id, _) = world.media.create(ANNA).await.unwrap();
    for (server, id) in
        [("", id.as_str()), ("elsewhere.example", id.as_str()), (SERVER, ""), (SERVER, "../x")]
    {
        assert!(matches!(world.media.record(server, id), Err(Error::NotFound)));
    }
}

fn png(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    DynamicImage::from(RgbImage::from_fn(width, height, |x, y| Rgb([x as u8, y as u8, (x ^ y) as u8])))
        .write_to(&mut Cursor::new(&mut bytes), ImageFormat::Png)
        .unwrap();
    bytes
}

#[tokio::test]
async fn a_thumbnail_is_made_once_and_kept() {
    let world = world(settings());
    let id = put(&world.media, &png(900, 700)).await;
    let record = world.media.record(SERVER, &id).unwrap();
    let size = Size { width: 300, height: 200, method: Method::Scale };
    let made = world.media.thumbnail(SERVER, &id, &record, size).await.unwrap();
    assert_eq!((made.content_type, made.rendition.as_str()), ("image/png", "320x240-scale"));
    let image = image::load_from_memory(&made.bytes).unwrap();
    assert_eq!((image.width(), image.height()), (309, 240));
    let stored = world.stored();
    assert_eq!(world.media.thumbnail(SERVER, &id, &record, size).await.unwrap(), made);
    assert_eq!(world.stored(), stored);
}

#[tokio::test]
async fn a_small_image_is_its_own_thumbnail() {
    let world = world(settings());
    let original = png(20, 20);
    let id = put(&world.media, &original).await;
    let record = world.media.record(SERVER, &id).unwrap();
    let size = Size { width: 32, height: 32, method: Method::Crop };
    for _ in 0..2 {
        let small = world.media.thumbnail(SERVER, &id, &record, size).await.unwrap();
        assert_eq!((&small.bytes[..], small.content_type), (&original[..], "image/png"));
    }
}

#[tokio::test]
async fn asking_for_every_size_does_not_fill_the_disk() {
    let world = world(Settings { dynamic_thumbnails: true, ..settings() });
    let id = put(&world.media, &png(200, 200)).await;
    let record = world.media.record(SERVER, &id).unwrap();
    for edge in 1..=40 {
        let size = Size { width: edge, height: edge, method: Method::Crop };
        let small = world.media.thumbnail(SERVER, &id, &record, size).await.unwrap();
        assert_eq!(image::load_from_memory(&small.bytes).unwrap().width(), edge);
    }
    let pieces = png(200, 200).len().div_ceil(PIECE_BYTES);
    assert_eq!(world.stored(), (1, pieces + postern_media::limits::THUMBNAILS_KEPT));
}

#[tokio::test]
async fn what_is_too_large_or_no_image_gets_no_thumbnail() {
    let world = world(Settings { max_image_pixels: 10_000, ..settings() });
    let size = Size { width: 32, height: 32, method: Method::Crop };
    let large = put(&world.media, &png(200, 200)).await;
    let record = world.media.record(SERVER, &large).unwrap();
    assert!(matches!(
        world.media.thumbnail(SERVER, &large, &record, size).await,
        Err(Error::ImageTooLarge(_))
    ));
    for content in [&b"no image at all"[..], b""] {
        let text = put(&world.media, content).await;
        let record = world.media.record(SERVER, &text).unwrap();
        assert!(matches!(
            world.media.thumbnail(SERVER, &text, &record, size).await,
            Err(Error::NoThumbnail(_))
        ));
    }
    let none = Size { width: 0, height: 32, method: Method::Crop };
    assert!(matches!(
        world.media.thumbnail(SERVER, &large, &record, none).await,
        Err(Error::InvalidParam(_))
    ));
}
