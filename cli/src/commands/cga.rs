//! `cga generate|verify`: addresses that prove their owner (RFC 3972).

use std::{
    net::Ipv6Addr,
    path::{Path, PathBuf},
};

use aws_lc_rs::{
    encoding::AsDer as _,
    rsa,
    signature::{Ed25519KeyPair, KeyPair as _},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use clap::{Args, Subcommand};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject as _};
use selvedge_fabric::{
    cga::{self, CgaParams, Generated, SubnetPrefix},
    key::PublicKey,
};
use serde::Serialize;

use super::{DONE, check_failed};
use crate::{
    args::Global,
    failure::{Failure, Outcome},
};

/// The prefix of documentation addresses (RFC 3849).
const DOCUMENTATION: &str = "2001:db8::/64";
/// Modifiers tried: Sec 1 takes 2^16 on average, and more than 2^21 once in 10^14 times.
const MAX_ATTEMPTS: u64 = 1 << 21;

/// Cryptographically generated addresses (RFC 3972).
#[derive(Debug, Subcommand)]
pub(crate) enum CgaCommand {
    /// Generate an address from a public key
    Generate(GenerateArgs),
    /// Verify that an address was made from a public key; exit code 5 when not
    Verify(VerifyArgs),
}

/// Generate an address from a public key.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge cga generate --sec 1                              with a new Ed25519 key
  selvedge cga generate --key-type rsa --prefix fd00:1:2:3::/64
  openssl pkey -in key.pem -pubout | selvedge cga generate --key /dev/stdin")]
pub(crate) struct GenerateArgs {
    /// Public key, PEM or DER SubjectPublicKeyInfo; a new key is made when absent
    #[arg(long, value_name = "F", conflicts_with = "key_type")]
    key: Option<PathBuf>,
    /// Kind of the new key; its private half is not kept
    #[arg(long, value_enum, default_value = "ed25519")]
    key_type: KeyType,
    /// Subnet prefix
    #[arg(long, default_value = DOCUMENTATION, value_name = "P/64", value_parser = prefix)]
    prefix: Subnet,
    /// Security parameter: each step makes an attack 2^16 times as expensive
    #[arg(long, default_value_t = 0, value_name = "SEC", value_parser = clap::value_parser!(u8).range(0..=1))]
    sec: u8,
}

/// Kinds of keys.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum KeyType {
    /// As nodes have.
    Ed25519,
    /// As in the RFC; 2048 bits.
    Rsa,
}

/// Verify that an address was made from a public key.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge cga verify 2001:db8::2c3a:… --key key.pem --modifier 00112233445566778899aabbccddeeff")]
pub(crate) struct VerifyArgs {
    /// The address
    address: Ipv6Addr,
    /// Public key: a file with PEM or DER SubjectPublicKeyInfo, or its base64 text
    #[arg(long, value_name = "F")]
    key: PathBuf,
    /// The modifier, 32 hexadecimal digits
    #[arg(long, value_name = "HEX", value_parser = modifier)]
    modifier: [u8; 16],
    /// The collision count
    #[arg(long, default_value_t = 0, value_name = "N")]
    collision_count: u8,
    /// Subnet prefix; the address's own first 64 bits when absent
    #[arg(long, value_name = "P/64", value_parser = prefix)]
    prefix: Option<Subnet>,
}

/// The first 64 bits of an address.
#[derive(Debug, Clone, Copy)]
struct Subnet(SubnetPrefix);

/// What is shown.
#[derive(Debug, Serialize)]
struct Shown {
    address: Ipv6Addr,
    prefix: String,
    sec: u8,
    modifier: String,
    collision_count: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u64>,
    /// SubjectPublicKeyInfo, base64.
    public_key: String,
}

pub(crate) fn run(global: &Global, command: CgaCommand) -> Outcome {
    match command {
        CgaCommand::Generate(args) => generate(global, &args),
        CgaCommand::Verify(args) => verify(global, &args),
    }
}

fn generate(global: &Global, args: &GenerateArgs) -> Outcome {
    let spki = match &args.key {
        Some(path) => read_key(path)?,
        None => new_key(args.key_type)?,
    };
    let bad = |e: cga::CgaError| Failure::usage(e.to_string());
    let found = cga::generate(args.prefix.0, &spki, args.sec, rand::random(), MAX_ATTEMPTS).map_err(bad)?;
    let Generated::Found { address, params, attempts } = found else {
        return Err(
            Failure::new("no address found within the bound").remedy("try again: the start is random")
        );
    };
    show(global, shown(address, args.prefix, args.sec, &params, Some(attempts), &spki))
}

fn verify(global: &Global, args: &VerifyArgs) -> Outcome {
    let spki = read_key(&args.key)?;
    let params = CgaParams { modifier: args.modifier, collision_count: args.collision_count };
    let own = args.address.octets();
    let subnet = args.prefix.unwrap_or(Subnet(std::array::from_fn(|i| own[i])));
    match cga::verify(args.address, subnet.0, &spki, &params) {
        Ok(sec) => show(global, shown(args.address, subnet, sec, &params, None, &spki)),
        Err(why) => {
            eprintln!("not verified: {why}");
            check_failed()
        }
    }
}

fn show(global: &Global, shown: Shown) -> Outcome {
    global.printer().show(&shown, |_| {
        let Shown { address, prefix, sec, modifier, collision_count, public_key, .. } = &shown;
        let tried = shown.attempts.map(|n| format!("attempts         {n}\n")).unwrap_or_default();
        format!(
            "address          {address}\nprefix           {prefix}\nsec              {sec}\n\
             modifier         {modifier}\ncollision count  {collision_count}\n{tried}\
             public key       {public_key}\n"
        )
    })?;
    DONE
}

fn shown(
    address: Ipv6Addr,
    subnet: Subnet,
    sec: u8,
    params: &CgaParams,
    attempts: Option<u64>,
    spki: &[u8],
) -> Shown {
    let mut octets = [0; 16];
    octets[..8].copy_from_slice(&subnet.0);
    Shown {
        address,
        prefix: format!("{}/64", Ipv6Addr::from(octets)),
        sec,
        modifier: params.modifier.iter().map(|b| format!("{b:02x}")).collect(),
        collision_count: params.collision_count,
        attempts,
        public_key: STANDARD.encode(spki),
    }
}

fn new_key(kind: KeyType) -> Outcome<Vec<u8>> {
    let cannot = |_| Failure::new("cannot make a key");
    match kind {
        KeyType::Ed25519 => {
            let pair = Ed25519KeyPair::generate().map_err(cannot)?;
            let raw = pair.public_key().as_ref().try_into();
            Ok(PublicKey(raw.map_err(|_| Failure::new("an Ed25519 key of unexpected size"))?).spki_der())
        }
        KeyType::Rsa => {
            let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).map_err(cannot)?;
            let der: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
                pair.public_key().as_der().map_err(cannot)?;
            Ok(der.as_ref().to_vec())
        }
    }
}

/// Reads a key from a file, PEM or DER; a text that is no file is taken as base64.
fn read_key(source: &Path) -> Outcome<Vec<u8>> {
    let text = source.to_string_lossy();
    let bytes = match std::fs::read(source) {
        Ok(bytes) => bytes,
        Err(error) => STANDARD.decode(text.as_bytes()).map_err(|_| {
            Failure::usage(format!("key {text}: {error}"))
                .remedy("give a file with a public key, PEM or DER, or its base64 text")
        })?,
    };
    let der = match SubjectPublicKeyInfoDer::from_pem_slice(&bytes) {
        Ok(spki) => spki.as_ref().to_vec(),
        Err(_) => bytes,
    };
    // An SPKI is an ASN.1 SEQUENCE; its inside is the business of whoever verifies signatures.
    if der.first() == Some(&0x30) {
        return Ok(der);
    }
    Err(Failure::usage(format!("key {text}: holds no SubjectPublicKeyInfo"))
        .remedy("make one with `openssl pkey -in key.pem -pubout`"))
}

fn prefix(text: &str) -> Result<Subnet, String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "64"));
    let address: Ipv6Addr = address.parse().map_err(|_| format!("{text:?} is no IPv6 prefix"))?;
    let octets = address.octets();
    if length != "64" || octets[8..] != [0; 8] {
        return Err(format!("{text:?} must be a /64, for instance {DOCUMENTATION}"));
    }
    Ok(Subnet(std::array::from_fn(|i| octets[i])))
}

fn modifier(text: &str) -> Result<[u8; 16], String> {
    let digits = text.len() == 32 && text.bytes().all(|c| c.is_ascii_hexdigit());
    match u128::from_str_radix(text, 16) {
        Ok(number) if digits => Ok(number.to_be_bytes()),
        _ => Err("a modifier has 32 hexadecimal digits".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_keys_make_addresses_that_verify() {
        let Subnet(net) = prefix(DOCUMENTATION).expect("a prefix");
        for (kind, sec) in [(KeyType::Ed25519, 0), (KeyType::Rsa, 0), (KeyType::Ed25519, 1)] {
            let spki = new_key(kind).expect("a key");
            let found = cga::generate(net, &spki, sec, [7; 16], MAX_ATTEMPTS).expect("a valid sec");
            let Generated::Found { address, params, .. } = found else { panic!("not found: {kind:?}") };
            assert_eq!(cga::verify(address, net, &spki, &params), Ok(sec));
        }
    }

    #[test]
    fn prefixes_and_modifiers_are_checked() {
        assert!(prefix("fd00:1:2:3::/64").is_ok());
        for bad in ["fd00::/48", "fd00::1/64", "10.0.0.0/8", ""] {
            assert!(prefix(bad).is_err(), "{bad}");
        }
        assert!(modifier(&"0f".repeat(16)).is_ok());
        for bad in ["", "+f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f", &"x".repeat(32)] {
            assert!(modifier(bad).is_err(), "{bad}");
        }
    }
}
