//! Entry points. Each finds the attachment, has the packet judged, and counts.
#![allow(unsafe_code, reason = "maps and helpers of the kernel are reached through raw pointers")]

mod account;
mod group;
mod maps;
mod origin;
mod world;

use aya_ebpf::{
    bindings::{TC_ACT_OK, TC_ACT_SHOT},
    macros::classifier,
    programs::TcContext,
};
use selvedge_abi::{Direction, Judgement, Reason, judge::judge_frame, packet::Packet};

use world::{Kernel, Skb};

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

/// Beneath the two: refuses everything on which neither of them has said the last word.
#[classifier]
pub(crate) fn selvedge_floor(_: TcContext) -> i32 {
    TC_ACT_SHOT
}

#[inline(always)]
fn classify(ctx: &TcContext, direction: Direction) -> i32 {
    let skb = ctx.skb.skb;
    // SAFETY: the kernel hands every classifier a valid context.
    let (ifindex, came_by, tagged) =
        unsafe { ((*skb).ifindex, (*skb).ingress_ifindex, (*skb).vlan_present != 0) };
    // SAFETY: the place is this CPU's; programs of one hook do not interrupt each other on it.
    let Some(packet) = maps::SCRATCH.get_ptr_mut(0).map(|scratch| unsafe { &mut *scratch }) else {
        return TC_ACT_SHOT;
    };
    let attachment = maps::attachment(ifindex);
    *packet = Packet::default();
    let mut judgement = match attachment {
        None => Judgement::refused(Reason::NotAttached),
        // A tag that the hardware or the kernel took off already; one in the frame is no IP either.
        Some(_) if tagged => Judgement::refused(Reason::NotIp),
        Some(attachment) => judge_frame(&Skb(skb), direction, attachment, &Kernel::new(attachment), packet),
    };
    if let (Some(attachment), Direction::Arriving) = (attachment, direction) {
        origin::check(&mut judgement, came_by, &packet.source, attachment);
    }
    account::packet(attachment, direction, &judgement, packet, ctx.len());
    // For tests, which read it back.
    // SAFETY: as above; the first word of `cb` is ours to write within the hook.
    unsafe { (*skb).cb[0] = judgement.verdict.reason as u32 };
    // The last word either way: nothing of the hook is asked after this, so what comes to the floor beneath
    // was not judged.
    if judgement.verdict.allow { TC_ACT_OK } else { TC_ACT_SHOT }
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers are for programs under the GPL only; the kernel reads this.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
