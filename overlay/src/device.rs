//! The TUN device of the system, with segmentation and receive offload: the host hands over and takes
//! TCP segments and UDP datagrams of up to 64 KiB, which are cut and joined here.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr},
};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::sync::Mutex;
use tun_rs::{AsyncDevice, DeviceBuilder, GROTable, VIRTIO_NET_HDR_LEN};

use crate::Tun;

/// Segments of one 64 KiB packet at the smallest usual segment size (536 bytes, RFC 9293).
const MAX_SEGMENTS: usize = 128;
/// Largest packet that the host hands over.
const MAX_PACKET_BYTES: usize = 65_535;
/// Packets that are joined at once. Their buffers must have room for what is joined to them, or nothing
/// is (tun-rs joins into existing capacity only).
const MAX_JOINED: usize = 64;
/// Reads after which what was read is worked on: a busy sender must not keep arrivals waiting.
const MAX_READS: usize = 4;
/// Packets that the kernel holds for us.
const QUEUE_PACKETS: u32 = 500;

/// What the device should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOptions {
    /// Its name, at most 15 bytes.
    pub name: String,
    /// Largest packet, bytes.
    pub mtu: u16,
    /// This node's IPv4 address with the length of the fabric's pool, which is thereby routed here.
    pub ipv4: Option<(Ipv4Addr, u8)>,
    /// This node's IPv6 address with the length of the fabric's prefix, likewise.
    pub ipv6: Option<(Ipv6Addr, u8)>,
}

/// A TUN device. It goes when this is dropped.
pub struct Device {
    device: AsyncDevice,
    reading: Mutex<Reading>,
    writing: Mutex<Writing>,
}

struct Reading {
    whole: Vec<u8>,
    segments: Vec<Vec<u8>>,
    sizes: Vec<usize>,
}

struct Writing {
    table: GROTable,
    buffers: Vec<BytesMut>,
}

impl Device {
    /// Makes the device and brings it up. Needs root, or `CAP_NET_ADMIN`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn open(options: &DeviceOptions) -> io::Result<Self> {
        let mut builder = DeviceBuilder::new()
            .name(&options.name)
            .mtu(options.mtu)
            .tx_queue_len(QUEUE_PACKETS)
            .offload(true);
        if let Some((address, length)) = options.ipv4 {
            builder = builder.ipv4(address, length, None);
        }
        if let Some((address, length)) = options.ipv6 {
            builder = builder.ipv6(address, length);
        }
        let device = builder.build_async()?;
        let segment_bytes = usize::from(options.mtu).max(1_500);
        let reading = Reading {
            whole: vec![0; VIRTIO_NET_HDR_LEN + MAX_PACKET_BYTES],
            segments: vec![vec![0; segment_bytes]; MAX_SEGMENTS],
            sizes: vec![0; MAX_SEGMENTS],
        };
        let buffer = || BytesMut::with_capacity(VIRTIO_NET_HDR_LEN + MAX_PACKET_BYTES);
        let writing =
            Writing { table: GROTable::default(), buffers: (0..MAX_JOINED).map(|_| buffer()).collect() };
        Ok(Self { device, reading: Mutex::new(reading), writing: Mutex::new(writing) })
    }
}

impl Reading {
    fn take(&self, count: usize, into: &mut Vec<Bytes>) {
        // One allocation for all segments of a packet.
        let total = self.sizes[..count].iter().sum();
        let mut all = BytesMut::with_capacity(total);
        for (segment, size) in self.segments.iter().zip(&self.sizes).take(count) {
            all.extend_from_slice(&segment[..*size]);
            into.push(all.split().freeze());
        }
    }
}

#[async_trait]
impl Tun for Device {
    async fn receive(&self, into: &mut Vec<Bytes>) -> io::Result<()> {
        let mut reading = self.reading.lock().await;
        let Reading { whole, segments, sizes } = &mut *reading;
        let count = self.device.recv_multiple(whole, segments, sizes, 0).await?;
        reading.take(count, into);
        for _ in 1..MAX_READS {
            let Reading { whole, segments, sizes } = &mut *reading;
            match self.device.try_recv_multiple(whole, segments, sizes, 0) {
                Ok(count) => reading.take(count, into),
                // Nothing more, or something that the next call will tell of.
                Err(_) => break,
            }
        }
        Ok(())
    }

    async fn send(&self, packets: &mut Vec<Bytes>) -> usize {
        let mut writing = self.writing.lock().await;
        let Writing { table, buffers } = &mut *writing;
        let mut refused = 0;
        for batch in packets.chunks(MAX_JOINED) {
            for (buffer, packet) in buffers.iter_mut().zip(batch) {
                buffer.clear();
                buffer.extend_from_slice(&[0; VIRTIO_NET_HDR_LEN]);
                buffer.extend_from_slice(packet);
            }
            let filled = &mut buffers[..batch.len()];
            if self.device.send_multiple(table, filled, VIRTIO_NET_HDR_LEN).await.is_err() {
                // Which of them is not told; the count is of writes that failed.
                refused += 1;
            }
        }
        packets.clear();
        refused
    }
}
