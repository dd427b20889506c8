//! How RocksDB is set up, family by family.

use crate::{limits, schema::Kind};
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamilyDescriptor, DBCompressionType, DataBlockIndexType, Options,
    SliceTransform, WriteBufferManager,
};

/// Options of the database as a whole.
pub(crate) fn database(create: bool) -> Options {
    let mut options = Options::default();
    options.create_if_missing(create);
    options.create_missing_column_families(true);
    options.set_max_open_files(limits::OPEN_FILES);
    options.set_max_total_wal_size(limits::WAL);
    // Memory is shared by all families: most are nearly always empty.
    options.set_write_buffer_manager(&WriteBufferManager::new_write_buffer_manager(
        limits::WRITE_BUFFERS,
        false,
    ));
    options.set_max_background_jobs(2);
    options.set_bytes_per_sync(1 << 20);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options.set_log_level(rocksdb::LogLevel::Warn);
    // A torn last record is what a crash leaves; anything else is damage and is reported.
    options.set_wal_recovery_mode(rocksdb::DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options
}

/// The families with their options; all share one block cache.
pub(crate) fn families(cache: &Cache) -> Vec<ColumnFamilyDescriptor> {
    crate::schema::ALL
        .iter()
        .map(|(name, kind)| ColumnFamilyDescriptor::new(*name, family(*kind, cache)))
        .collect()
}

fn family(kind: Kind, cache: &Cache) -> Options {
    let mut options = Options::default();
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_format_version(6);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_optimize_filters_for_memory(true);
    options.set_level_compaction_dynamic_level_bytes(true);
    // An empty family takes its first arena block only when written to.
    options.set_write_buffer_size(16 << 20);
    options.set_arena_block_size(64 << 10);
    compression(&mut options);
    match kind {
        Kind::Point => {
            table.set_bloom_filter(10.0, false);
            table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
            table.set_data_block_hash_ratio(0.75);
            options.set_memtable_whole_key_filtering(true);
            options.set_memtable_prefix_bloom_ratio(0.02);
        }
        Kind::Scan(prefix) => {
            table.set_bloom_filter(10.0, false);
            options.set_prefix_extractor(SliceTransform::create_fixed_prefix(prefix));
            options.set_memtable_prefix_bloom_ratio(0.02);
        }
        Kind::Small => table.set_block_size(4 << 10),
        Kind::Blob => {
            options.set_enable_blob_files(true);
            options.set_min_blob_size(16 << 10);
            options.set_blob_file_size(64 << 20);
            options.set_blob_compression_type(DBCompressionType::None);
            options.set_enable_blob_gc(true);
        }
    }
    options.set_block_based_table_factory(&table);
    options
}

/// lz4 where data is young, zstd with a trained dictionary at the bottom, where nearly all of it lies.
fn compression(options: &mut Options) {
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_bottommost_compression_options(-14, 3, 0, 16 << 10, true);
    options.set_bottommost_zstd_max_train_bytes(100 * (16 << 10), true);
}
