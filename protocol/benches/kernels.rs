//! The hot loops, each alone, on one chunk of 512 KiB: `cargo bench -p protocol`.
//!
//! `keystream` is AES-256-CTR and nothing else: the bar for `mask` is 1.25 times that.
#![allow(missing_docs, clippy::unwrap_used)]

use std::hint::black_box;

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ctr::Ctr128BE;
use protocol::{Chunks, Lanes, Ring, StreamKey, add_mask, chunk_digest};

fn keystream(c: &mut Criterion) {
    let mut group = c.benchmark_group("keystream");
    group.throughput(Throughput::Bytes(512 * 1024));
    let mut tile = vec![0; 8 * 1024];
    group.bench_function("512 KiB", |b| {
        b.iter(|| {
            let mut cipher = Ctr128BE::<Aes256>::new(&[7; 32].into(), &[0; 16].into());
            for _ in 0..64 {
                cipher.write_keystream(black_box(&mut tile));
            }
        });
    });
    group.finish();
}

fn vectors(c: &mut Criterion) {
    for ring in Ring::all() {
        let chunks = Chunks::new(ring, 1 << 20).unwrap();
        let (len, key) = (chunks.len(0), StreamKey::new([7; 32]));
        let mut lanes = Lanes::zero(ring, len);
        let packed = lanes.pack(ring);

        let mut group = c.benchmark_group(format!("w={}", ring.bits()));
        group.throughput(Throughput::Bytes((len * ring.lane_bytes()) as u64));
        group.bench_function("mask", |b| b.iter(|| add_mask(&key, ring, 0, black_box(&mut lanes))));
        group.bench_function("add", |b| b.iter(|| lanes.add_packed(ring, black_box(&packed)).unwrap()));
        group.bench_function("pack", |b| b.iter(|| black_box(&lanes).pack(ring)));
        group.finish();
    }
}

fn digest(c: &mut Criterion) {
    let bytes = vec![7; 512 * 1024];
    let mut group = c.benchmark_group("digest");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.bench_function("512 KiB", |b| b.iter(|| chunk_digest(black_box(&bytes))));
    group.finish();
}

criterion_group!(kernels, keystream, vectors, digest);
criterion_main!(kernels);
