//! Externals: the only place where an address may appear.

use std::net::IpAddr;

use super::Check;
use crate::object::ExternalSpec;

/// Most addresses of one external.
const MAX_ADDRESSES: usize = 1_024;
/// Longest host name, in bytes (RFC 1035, section 2.3.4, less the final dot and length byte).
const MAX_HOST_BYTES: usize = 253;

impl Check<'_> {
    pub(super) fn external(&mut self, external: &ExternalSpec) {
        self.bound("spec.addresses", external.addresses.len(), MAX_ADDRESSES);
        for (i, address) in external.addresses.iter().enumerate() {
            let field = format!("spec.addresses[{i}]");
            if let Err(why) = check_address(address) {
                self.problem(field, format!("{address:?} {why}"));
            } else if external.addresses[..i].contains(address) {
                self.problem(field, format!("{address} is listed twice"));
            }
        }
        if self.key.domain.is_none() && !external.roles.is_empty() {
            self.problem_with(
                "spec.roles",
                "an external without a domain plays no roles: flows are allowed between members of a domain",
                "give it a domain in its metadata".to_owned(),
            );
        }
        self.roles(&external.roles);
    }
}

/// An address, a CIDR without host bits, or a host name.
fn check_address(text: &str) -> Result<(), String> {
    if let Some((address, len)) = text.split_once('/') {
        let address: IpAddr = address.parse().map_err(|_| "does not start with an address".to_owned())?;
        // Rust's own parser also takes a sign and leading zeros.
        let number = len.parse::<u8>().ok().filter(|n| n.to_string() == len);
        let len = number.ok_or_else(|| "has a malformed prefix length".to_owned())?;
        let (bits, width) = match address {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, 32),
            IpAddr::V6(v6) => (u128::from(v6), 128),
        };
        if len > width {
            return Err(format!("has a prefix longer than {width} bits"));
        }
        if bits.checked_shl(u32::from(len)).unwrap_or(0) != 0 {
            return Err("has bits set beyond its prefix; write the network's first address".to_owned());
        }
        return Ok(());
    }
    if text.parse::<IpAddr>().is_ok() {
        return Ok(());
    }
    let label = |label: &str| {
        let fits = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(fits) && !label.starts_with('-')
    };
    // A last label of digits only is an address that went wrong, such as 10.0.0.300.
    let last_is_number = text.rsplit('.').next().is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if text.len() > MAX_HOST_BYTES || last_is_number || !text.split('.').all(label) {
        return Err("is no address, CIDR or lower-case host name".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::check_address;

    #[test]
    fn addresses_cidrs_and_host_names() {
        for good in [
            "192.0.2.1",
            "2001:db8::1",
            "192.0.2.0/24",
            "0.0.0.0/0",
            "::/0",
            "2001:db8::/32",
            "api.example.org",
        ] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "192.0.2.1/24",
            "10.0.0.300",
            "192.0.2.0/33",
            "192.0.2.0/+24",
            "x/8",
            "a..b",
            "Example.org",
            "a b",
            "2001:db8::1/32",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
