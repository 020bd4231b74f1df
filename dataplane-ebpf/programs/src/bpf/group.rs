//! Process trees: every socket of a control group carries the group's identity, over loopback too.
//!
//! Sockets are given the group's own address when they bind, connect or send; and whatever they did, what
//! leaves the group must carry it, and what arrives must be for it.

use aya_ebpf::{
    Global,
    bindings::{bpf_sock_addr, sockaddr},
    helpers::generated::{
        bpf_bind, bpf_get_current_ancestor_cgroup_id, bpf_get_netns_cookie, bpf_skb_ancestor_cgroup_id,
    },
    macros::{cgroup_skb, cgroup_sock_addr},
    programs::{SkBuffContext, SockAddrContext},
};
use selvedge_abi::{
    Address, Attachment, Direction, Judgement, Reason,
    judge::judge,
    layout::MAX_GROUP_DEPTH,
    packet::{ETHERTYPE_IPV4, ETHERTYPE_IPV6, Packet},
};

use super::{
    account, maps, origin,
    world::{Kernel, Skb},
};

/// What these programs return.
const PASS: i32 = 1;
const REFUSE: i32 = 0;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
/// TCP, and its flag RST.
const TCP: u8 = 6;
const RST: u8 = 0x04;

/// The network namespace of the node, by the kernel's number; 0 where the kernel does not tell programs of
/// control groups of which one a packet is.
#[unsafe(no_mangle)]
static SELVEDGE_NETNS: Global<u64> = Global::new(0);

/// What the group sends.
#[cgroup_skb(egress)]
pub(crate) fn selvedge_group_leave(ctx: SkBuffContext) -> i32 {
    classify(&ctx, Direction::Leaving)
}

/// What is sent to the group.
#[cgroup_skb(ingress)]
pub(crate) fn selvedge_group_arrive(ctx: SkBuffContext) -> i32 {
    classify(&ctx, Direction::Arriving)
}

#[inline(always)]
fn classify(ctx: &SkBuffContext, direction: Direction) -> i32 {
    // SAFETY: the place is this CPU's; programs of one hook do not interrupt each other on it.
    let Some(packet) = maps::SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch }) else {
        return REFUSE;
    };
    *packet = Packet::default();
    let skb = ctx.skb.skb;
    let attachment = group_of(|level| {
        // SAFETY: the kernel hands every program a valid context.
        unsafe { bpf_skb_ancestor_cgroup_id(skb, level) }
    });
    let mut judgement = match attachment {
        None => Judgement::refused(Reason::NotAttached),
        Some(attachment) => {
            // SAFETY: as above. The protocol is in network order.
            let ethertype = u16::from_be(unsafe { (*skb).protocol } as u16);
            judge(&Skb(skb), 0, ethertype, direction, attachment, &Kernel::new(attachment), packet)
        }
    };
    if let (Some(attachment), Direction::Arriving) = (attachment, direction) {
        // SAFETY: as above.
        origin::check(&mut judgement, unsafe { (*skb).ifindex }, &packet.source, attachment);
    }
    account::packet(attachment, direction, &judgement, packet, ctx.len());
    if judgement.verdict.allow { PASS } else { REFUSE }
}

/// At the root of all groups: no process outside a group may speak from its address. The kernel itself
/// does when it refuses a TCP segment, so resets pass.
///
/// Fabrics that share a host may use the same IPv4 addresses, each in network namespaces of its own, so these
/// are guarded in that of the node alone; from elsewhere, the kernel takes no packet with an IPv4 address of
/// its own (RFC 1812, section 5.3.8). It has no such rule for IPv6, where every fabric has addresses of its
/// own: they are guarded everywhere.
#[cgroup_skb(egress)]
pub(crate) fn selvedge_group_guard(ctx: SkBuffContext) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel hands every program a valid context. The protocol is in network order.
    let source = match u16::from_be(unsafe { (*skb).protocol } as u16) {
        ETHERTYPE_IPV4 => ctx.load::<[u8; 4]>(12).map(Address::ipv4),
        ETHERTYPE_IPV6 => ctx.load::<[u8; 16]>(8).map(Address::ipv6),
        _ => return PASS,
    };
    let Ok(source) = source else { return PASS };
    // SAFETY: the number is copied at once.
    let Some(owner) = (unsafe { maps::GUARDED.get(source) }).copied() else { return PASS };
    let netns = SELVEDGE_NETNS.load();
    // SAFETY: as above. Where the number is 0, the kernel sees that the call is never made.
    if source.is_ipv4() && netns != 0 && unsafe { bpf_get_netns_cookie(skb.cast()) } != netns {
        return PASS;
    }
    for level in 1..=MAX_GROUP_DEPTH {
        // SAFETY: as above.
        let id = unsafe { bpf_skb_ancestor_cgroup_id(skb, level as i32) };
        if id == owner {
            return PASS;
        }
        if id == 0 {
            break;
        }
    }
    if is_reset(&ctx, source.is_ipv4()) { PASS } else { REFUSE }
}

#[inline(always)]
fn is_reset(ctx: &SkBuffContext, is_ipv4: bool) -> bool {
    // The kernel's own resets have neither options nor extension headers before them.
    let (protocol, flags) = if is_ipv4 { (9, 20 + 13) } else { (6, 40 + 13) };
    matches!(ctx.load::<u8>(protocol), Ok(TCP)) && matches!(ctx.load::<u8>(flags), Ok(f) if f & RST != 0)
}

/// The attachment of the innermost group that has one.
#[inline(always)]
fn group_of(ancestor: impl Fn(i32) -> u64) -> Option<&'static Attachment> {
    let mut found = None;
    for level in 1..=MAX_GROUP_DEPTH {
        let id = ancestor(level as i32);
        if id == 0 {
            break;
        }
        if let Some(attachment) = maps::group(id) {
            found = Some(attachment);
        }
    }
    found
}

#[inline(always)]
fn current() -> Option<&'static Attachment> {
    // SAFETY: a helper without pointers.
    group_of(|level| unsafe { bpf_get_current_ancestor_cgroup_id(level) })
}

#[cgroup_sock_addr(connect4)]
pub(crate) fn selvedge_connect4(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = attachment.addresses[0];
    if own.is_none() {
        return REFUSE;
    }
    redirect4(ctx.sock_addr, attachment);
    let mut from = Sockaddr4 { family: AF_INET, port: 0, address: own.0[3], zero: [0; 8] };
    // A socket that is bound already keeps its address; if that is not the own one, what it sends is
    // refused as spoofed.
    // SAFETY: the address outlives the call and is as long as is said.
    unsafe { bpf_bind(ctx.sock_addr, (&raw mut from).cast::<sockaddr>(), size_of::<Sockaddr4>() as i32) };
    PASS
}

#[cgroup_sock_addr(connect6)]
pub(crate) fn selvedge_connect6(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = attachment.addresses[1];
    if own.is_none() {
        return REFUSE;
    }
    redirect6(ctx.sock_addr, attachment);
    let mut from = Sockaddr6 { family: AF_INET6, port: 0, flow: 0, address: own.0, scope: 0 };
    // SAFETY: as above.
    unsafe { bpf_bind(ctx.sock_addr, (&raw mut from).cast::<sockaddr>(), size_of::<Sockaddr6>() as i32) };
    PASS
}

#[cgroup_sock_addr(sendmsg4)]
pub(crate) fn selvedge_sendmsg4(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = attachment.addresses[0];
    if own.is_none() {
        return REFUSE;
    }
    redirect4(ctx.sock_addr, attachment);
    // SAFETY: the kernel hands every program a valid context.
    unsafe { (*ctx.sock_addr).msg_src_ip4 = own.0[3] };
    PASS
}

#[cgroup_sock_addr(sendmsg6)]
pub(crate) fn selvedge_sendmsg6(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = attachment.addresses[1];
    if own.is_none() {
        return REFUSE;
    }
    redirect6(ctx.sock_addr, attachment);
    // SAFETY: the kernel hands every program a valid context.
    unsafe { store(&raw mut (*ctx.sock_addr).msg_src_ip6, own.0) };
    PASS
}

/// Any address, and loopback, become the own address; another one is refused.
#[cgroup_sock_addr(bind4)]
pub(crate) fn selvedge_bind4(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = attachment.addresses[0];
    // SAFETY: the kernel hands every program a valid context.
    let wanted = unsafe { (*ctx.sock_addr).user_ip4 };
    if own.is_none() {
        return REFUSE;
    }
    if wanted == 0 || is_loopback4(wanted) {
        // SAFETY: as above.
        unsafe { (*ctx.sock_addr).user_ip4 = own.0[3] };
        return PASS;
    }
    (wanted == own.0[3]) as i32
}

/// The same. Where there is no own IPv6 address, a socket for both families gets the IPv4 one.
#[cgroup_sock_addr(bind6)]
pub(crate) fn selvedge_bind6(ctx: SockAddrContext) -> i32 {
    let Some(attachment) = current() else { return REFUSE };
    let own = match attachment.addresses[1].is_none() {
        true => attachment.addresses[0],
        false => attachment.addresses[1],
    };
    if own.is_none() {
        return REFUSE;
    }
    // SAFETY: the kernel hands every program a valid context.
    let wanted = Address(unsafe { load(&raw const (*ctx.sock_addr).user_ip6) });
    if wanted.is_none() || is_loopback6(&wanted) {
        // SAFETY: as above.
        unsafe { store(&raw mut (*ctx.sock_addr).user_ip6, own.0) };
        return PASS;
    }
    attachment.owns(&wanted) as i32
}

/// What a process says to loopback it says to its own group, unless the node offers it there.
#[inline(always)]
fn redirect4(to: *mut bpf_sock_addr, attachment: &Attachment) {
    // SAFETY: the kernel hands every program a valid context.
    let (address, protocol, port) = unsafe { ((*to).user_ip4, (*to).protocol, (*to).user_port) };
    let is_offered = attachment.is_gateway(&Address::ipv4(address.to_ne_bytes()))
        && attachment.offers(protocol as u8, u16::from_be(port as u16));
    if is_loopback4(address) && !is_offered {
        // SAFETY: as above.
        unsafe { (*to).user_ip4 = attachment.addresses[0].0[3] };
    }
}

#[inline(always)]
fn redirect6(to: *mut bpf_sock_addr, attachment: &Attachment) {
    // SAFETY: the kernel hands every program a valid context.
    let (address, protocol, port) =
        unsafe { (Address(load(&raw const (*to).user_ip6)), (*to).protocol, (*to).user_port) };
    let is_offered =
        attachment.is_gateway(&address) && attachment.offers(protocol as u8, u16::from_be(port as u16));
    if is_loopback6(&address) && !is_offered {
        // SAFETY: as above.
        unsafe { store(&raw mut (*to).user_ip6, attachment.addresses[1].0) };
    }
}

#[inline(always)]
const fn is_loopback4(address: u32) -> bool {
    address.to_ne_bytes()[0] == 127
}

#[inline(always)]
fn is_loopback6(address: &Address) -> bool {
    address.same(&Address::ipv6([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]))
}

/// Word by word: the verifier takes no wider access to the context.
///
/// # Safety
/// The pointer must be to a field of the context.
#[inline(always)]
unsafe fn load(from: *const [u32; 4]) -> [u32; 4] {
    // SAFETY: the caller's.
    unsafe {
        [
            core::ptr::read_volatile(&raw const (*from)[0]),
            core::ptr::read_volatile(&raw const (*from)[1]),
            core::ptr::read_volatile(&raw const (*from)[2]),
            core::ptr::read_volatile(&raw const (*from)[3]),
        ]
    }
}

/// # Safety
/// As for [`load`].
#[inline(always)]
unsafe fn store(to: *mut [u32; 4], words: [u32; 4]) {
    // SAFETY: the caller's.
    unsafe {
        core::ptr::write_volatile(&raw mut (*to)[0], words[0]);
        core::ptr::write_volatile(&raw mut (*to)[1], words[1]);
        core::ptr::write_volatile(&raw mut (*to)[2], words[2]);
        core::ptr::write_volatile(&raw mut (*to)[3], words[3]);
    }
}

/// `struct sockaddr_in`.
#[repr(C)]
struct Sockaddr4 {
    family: u16,
    port: u16,
    address: u32,
    zero: [u8; 8],
}

/// `struct sockaddr_in6`.
#[repr(C)]
struct Sockaddr6 {
    family: u16,
    port: u16,
    flow: u32,
    address: [u32; 4],
    scope: u32,
}
