//! Everything that crosses the network of a namespace, as the wire has it (packet(7)).

use std::{
    fs,
    net::UdpSocket,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::net::{AddressFamily, SocketType, eth, socket, sockopt::set_socket_recv_buffer_size_force};

/// Room for packets that wait to be read: several seconds of a small fabric.
const BUFFER_BYTES: usize = 64 << 20;
/// Largest packet; the loopback device carries segments of up to 64 KiB unsplit.
const MAX_PACKET_BYTES: usize = 128 << 10;
/// Most that is kept: many times what a small fabric says in a minute.
const MAX_KEPT_BYTES: usize = 1 << 30;
/// How often the reader looks whether it should end.
const LOOK: Duration = Duration::from_millis(100);

const IPV4: u8 = 4;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// A capture that runs.
#[derive(Debug)]
pub struct Capture {
    stop: Arc<AtomicBool>,
    reader: JoinHandle<Vec<Packet>>,
}

/// One packet.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Ports of source and destination; none for what is neither TCP nor UDP.
    pub ports: Option<(u16, u16)>,
    /// All of it, from the IP header on.
    pub bytes: Vec<u8>,
}

impl Capture {
    /// Captures in the network namespace of this thread from now on. Needs root.
    ///
    /// # Errors
    /// When no packet socket can be had.
    pub fn start() -> anyhow::Result<Self> {
        let socket = socket(AddressFamily::PACKET, SocketType::DGRAM, Some(eth::ALL));
        let socket: OwnedFd = socket.context("cannot open a packet socket")?;
        set_socket_recv_buffer_size_force(&socket, BUFFER_BYTES)?;
        // Receiving is the same for all sockets; the standard library only has a name for this kind.
        let socket = UdpSocket::from(socket);
        socket.set_read_timeout(Some(LOOK))?;
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let reader =
            std::thread::Builder::new().name("capture".into()).spawn(move || read(&socket, &told))?;
        Ok(Self { stop, reader })
    }

    /// Ends the capture. Every packet is in it twice: as it was sent and as it arrived.
    ///
    /// # Errors
    /// When packets were missed, so that the capture proves nothing.
    pub fn finish(self) -> anyhow::Result<Vec<Packet>> {
        let crossed = loopback_packets()?;
        self.stop.store(true, Ordering::Relaxed);
        let packets = self.reader.join().map_err(|_| anyhow::anyhow!("the capturing thread panicked"))?;
        ensure!(packets.len() >= crossed * 2, "{crossed} packets crossed, of {} ends", packets.len());
        Ok(packets)
    }
}

/// Reads until it is told to stop and nothing waits any more.
fn read(socket: &UdpSocket, stop: &AtomicBool) -> Vec<Packet> {
    let mut buffer = vec![0; MAX_PACKET_BYTES];
    let (mut packets, mut kept) = (Vec::new(), 0);
    while kept < MAX_KEPT_BYTES {
        // Before the look, so that what came before it is still read.
        let last = stop.load(Ordering::Relaxed);
        match socket.recv(&mut buffer) {
            Ok(length) => {
                kept += length;
                packets.push(Packet { ports: ports(&buffer[..length]), bytes: buffer[..length].to_vec() });
            }
            Err(_) if last => break,
            Err(_) => {}
        }
    }
    packets
}

/// Source and destination port of an IPv4 packet (RFC 791, 768, 9293).
fn ports(packet: &[u8]) -> Option<(u16, u16)> {
    let first = *packet.first()?;
    let header = usize::from(first & 0x0f) * 4;
    if first >> 4 != IPV4 || ![TCP, UDP].contains(packet.get(9)?) {
        return None;
    }
    let port = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    Some((port(header)?, port(header + 2)?))
}

/// How many packets the loopback device of this thread's namespace has carried.
fn loopback_packets() -> anyhow::Result<usize> {
    let table = fs::read_to_string("/proc/thread-self/net/dev")?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix("lo:"));
    let received = line.and_then(|line| line.split_whitespace().nth(1));
    received.context("no loopback device")?.parse().context("the loopback device's counter")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_those_of_udp_and_tcp_alone() {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[9] = UDP;
        packet[20..24].copy_from_slice(&[0x1c, 0xe8, 0x00, 0x35]);
        assert_eq!(ports(&packet), Some((7400, 53)));
        packet[9] = 1;
        assert_eq!(ports(&packet), None);
        assert_eq!(ports(&packet[..3]), None);
        assert_eq!(ports(&[]), None);
    }
}
