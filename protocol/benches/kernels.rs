//! The hot loops, each alone: `cargo bench -p protocol`, about a minute.
//!
//! `keystream` is AES-256-CTR and nothing else: by the crates that define it, and by whatever this processor is given,
//! on lanes that stay in the first cache. The bar for the groups `masks` and `expand` is 1.25 times the keystreams that
//! they hold, so their throughput is given in bytes of keystream: 0.8 of what `keystream` shows, or more.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;
use std::time::Duration;

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ctr::Ctr128BE;
use protocol::{Chunks, Lanes, Ring, StreamKey, add_mask, add_masks, chunk_digest, dequantize, mask_values, quantize};

/// Coordinates of a vector as studies have them.
const D: u64 = 1_000_000;

fn ring() -> Ring {
    Ring::new(32).unwrap()
}

fn keys(count: usize) -> Vec<StreamKey> {
    (0..count).map(|i| StreamKey::new([i as u8; 32])).collect()
}

fn keystream(c: &mut Criterion) {
    let mut group = c.benchmark_group("keystream");
    group.throughput(Throughput::Bytes(512 * 1024));
    let mut tile = vec![0; 8 * 1024];
    group.bench_function("aes and ctr", |b| {
        b.iter(|| {
            let mut cipher = Ctr128BE::<Aes256>::new(&[7; 32].into(), &[0; 16].into());
            (0..64).for_each(|_| cipher.write_keystream(black_box(&mut tile)));
        });
    });
    let (key, mut lanes) = (StreamKey::new([7; 32]), Lanes::zero(ring(), 4096));
    group.bench_function("this processor", |b| {
        b.iter(|| (0..32).for_each(|tile| add_mask(&key, ring(), tile * 4096, black_box(&mut lanes))));
    });
    group.finish();
}

fn masks(c: &mut Criterion) {
    let chunks = Chunks::new(ring(), D).unwrap();
    let values: Vec<i64> = (0..D as i64).map(|i| i * 37 % 1_000_000 - 500_000).collect();
    let mut group = c.benchmark_group("masks");
    for seeds in [1, 3] {
        let keys = keys(seeds);
        group.throughput(Throughput::Bytes(4 * D * seeds as u64));
        group.bench_function(format!("{seeds} of {D}, values to words"), |b| {
            b.iter(|| {
                for chunk in 0..chunks.count() {
                    let start = chunks.start(chunk);
                    let values = &values[start as usize..start as usize + chunks.len(chunk)];
                    black_box(mask_values(&keys, ring(), start, black_box(values)).unwrap());
                }
            });
        });
    }
    group.finish();
}

fn expand(c: &mut Criterion) {
    let (chunks, keys) = (Chunks::new(ring(), D).unwrap(), keys(100));
    let mut sum = Lanes::zero(ring(), chunks.len(0));
    let mut group = c.benchmark_group("expand");
    group.throughput(Throughput::Bytes(100 * chunks.bytes(0) as u64));
    group.bench_function("100 of a chunk", |b| {
        b.iter(|| add_masks(black_box(&keys), ring(), 0, &mut sum));
    });
    group.finish();
}

fn words(c: &mut Criterion) {
    for ring in Ring::all() {
        let chunks = Chunks::new(ring, 1 << 20).unwrap();
        let (len, key) = (chunks.len(0), StreamKey::new([7; 32]));
        let mut lanes = Lanes::zero(ring, len);
        let packed = lanes.pack(ring);

        let mut group = c.benchmark_group(format!("w={}", ring.bits()));
        group.throughput(Throughput::Bytes((len * ring.lane_bytes()) as u64));
        group.bench_function("mask", |b| b.iter(|| add_mask(&key, ring, 0, black_box(&mut lanes))));
        group.throughput(Throughput::Bytes(packed.len() as u64));
        group.bench_function("add", |b| b.iter(|| lanes.add_packed(ring, black_box(&packed)).unwrap()));
        group.bench_function("pack", |b| b.iter(|| black_box(&lanes).pack(ring)));
        group.finish();
    }
}

/// What a server does with a hundred vectors, digests aside. The bar is 1.5 times what it takes to read them once.
fn server(c: &mut Criterion) {
    let chunks = Chunks::new(ring(), D).unwrap();
    let vectors: Vec<Vec<u8>> = (0..100).map(|i| vec![i as u8; 4 * D as usize]).collect();
    let mut sums: Vec<Lanes> = (0..chunks.count()).map(|chunk| Lanes::zero(ring(), chunks.len(chunk))).collect();
    let mut group = c.benchmark_group("server");
    group.throughput(Throughput::Bytes(100 * 4 * D)).sample_size(10);
    group.bench_function("read 100 vectors", |b| {
        let read = |vector: &Vec<u8>| {
            vector.as_chunks().0.iter().fold(0_u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)))
        };
        b.iter(|| black_box(&vectors).iter().map(read).fold(0, u64::wrapping_add));
    });
    group.bench_function("add 100 vectors", |b| {
        b.iter(|| {
            for vector in black_box(&vectors) {
                let parts = vector.chunks(chunks.bytes(0));
                sums.iter_mut().zip(parts).for_each(|(sum, part)| sum.add_packed(ring(), part).unwrap());
            }
        });
    });
    group.finish();
}

/// Floats to what is masked, and sums back: a fraction of the mask of one seed, `masks/1`.
fn floats(c: &mut Criterion) {
    let values: Vec<f32> = (0..D).map(|i| (i % 1_999) as f32 / 7.0 - 140.0).collect();
    let sums = quantize(&values, 1_000_000, 1 << 40).unwrap();
    let mut group = c.benchmark_group("floats");
    group.throughput(Throughput::Elements(D));
    group.bench_function("quantize", |b| b.iter(|| quantize(black_box(&values), 1_000_000, 1 << 40).unwrap()));
    group.bench_function("dequantize", |b| b.iter(|| dequantize(black_box(&sums), 1_000_000).unwrap()));
    group.finish();
}

fn digest(c: &mut Criterion) {
    let bytes = vec![7; 512 * 1024];
    let mut group = c.benchmark_group("digest");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("512 KiB", |b| b.iter(|| chunk_digest(black_box(&bytes))));
    group.finish();
}

fn short() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(30)
}

criterion_group! { name = kernels; config = short(); targets = keystream, masks, expand, words, server, floats, digest }
criterion_main!(kernels);
