//! Where an arriving packet came onto this host. An address of the fabric comes from this host itself, from the
//! interface of a workload, where its source was checked, or by the overlay. Anywhere else it is a forgery, by
//! whoever shares a network with this host.

use aya_ebpf::btf_maps::HashMap;
use selvedge_abi::{Address, Attachment, Judgement, Reason};

use super::maps;

/// The loopback device, in every network namespace; 0 stands for what this host itself sends.
const LOOPBACK: u32 = 1;

/// Refuses a packet that was allowed by its addresses and could not have come this way.
#[inline(always)]
pub(super) fn check(judgement: &mut Judgement, ifindex: u32, source: &Address, attachment: &Attachment) {
    if judgement.verdict.allow && ifindex > LOOPBACK && is_forged(ifindex, source, attachment) {
        *judgement = Judgement::refused(Reason::Spoofed);
    }
}

#[inline(always)]
fn is_forged(ifindex: u32, source: &Address, attachment: &Attachment) -> bool {
    let Some(control) = maps::CONTROL.get(0) else { return true };
    // SAFETY: userspace writes each word in one piece.
    let (generation, carrier) = unsafe {
        (
            core::ptr::read_volatile(&raw const control.generation),
            core::ptr::read_volatile(&raw const control.carrier),
        )
    };
    if ifindex == carrier || maps::attachment(ifindex).is_some() {
        return false;
    }
    // SAFETY: the tables of a slot that is in use are not written to.
    let is_endpoint = maps::ENDPOINTS
        .get((generation & 1) as u32)
        .is_some_and(|endpoints| unsafe { HashMap::get(endpoints, source) }.is_some());
    is_endpoint || attachment.is_gateway(source)
}
