//! Entry points. Each finds the attachment, has the packet judged, and counts.
#![allow(unsafe_code, reason = "maps and helpers of the kernel are reached through raw pointers")]

mod account;
mod group;
mod maps;
mod world;

use aya_ebpf::{bindings::TC_ACT_SHOT, macros::classifier, programs::TcContext};
use selvedge_abi::{Direction, Judgement, Reason, judge::judge_frame, packet::Packet};

use world::{Kernel, Skb};

/// Passes the packet on to the next program of the hook, if there is one.
const TCX_NEXT: i32 = -1;

/// On the host side of a workload's interface: what the workload sends.
#[classifier]
pub(crate) fn selvedge_leave(ctx: TcContext) -> i32 {
    classify(&ctx, Direction::Leaving)
}

/// On the host side of a workload's interface: what is sent to the workload.
#[classifier]
pub(crate) fn selvedge_arrive(ctx: TcContext) -> i32 {
    classify(&ctx, Direction::Arriving)
}

/// Refuses everything, while another program is put in its place.
#[classifier]
pub(crate) fn selvedge_shut(_: TcContext) -> i32 {
    TC_ACT_SHOT
}

#[inline(always)]
fn classify(ctx: &TcContext, direction: Direction) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel hands every classifier a valid context.
    let (ifindex, tagged) = unsafe { ((*skb).ifindex, (*skb).vlan_present != 0) };
    // SAFETY: the place is this CPU's; programs of one hook do not interrupt each other on it.
    let Some(packet) = maps::SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch }) else {
        return TC_ACT_SHOT;
    };
    let attachment = maps::attachment(ifindex);
    *packet = Packet::default();
    let judgement = match attachment {
        None => Judgement::refused(Reason::NotAttached),
        // A tag that the hardware or the kernel took off already; one in the frame is no IP either.
        Some(_) if tagged => Judgement::refused(Reason::NotIp),
        Some(attachment) => judge_frame(&Skb(skb), direction, attachment, &Kernel::new(attachment), packet),
    };
    account::packet(attachment, direction, &judgement, packet, ctx.len());
    // For other programs of the hook, and for tests, which read it back.
    // SAFETY: as above; the first word of `cb` is ours to write between programs of the hook.
    unsafe { (*skb).cb[0] = judgement.verdict.reason as u32 };
    if judgement.verdict.allow { TCX_NEXT } else { TC_ACT_SHOT }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for programs under the GPL only; the kernel reads this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
