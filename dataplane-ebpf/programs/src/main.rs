//! The eBPF programs of the data plane: thin shells around [`selvedge_abi::judge`].
//!
//! `cargo xtask ebpf build` compiles them; for any other target this is an empty program, so that the
//! workspace builds without a BPF toolchain.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]

#[cfg(target_arch = "bpf")]
mod bpf;

#[cfg(not(target_arch = "bpf"))]
fn main() {}
