//! Extended DNS errors (RFC 8914): why a query was refused, for people with `dig`.

use hickory_proto::{op::Message, rr::rdata::opt::EdnsOption};

/// The option code of an extended error.
const OPTION_CODE: u16 = 15;

/// The extended errors in use, by their registered numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Ede {
    Prohibited = 18,
    NotAuthoritative = 20,
    NotSupported = 21,
    NoReachableAuthority = 22,
    NotReady = 14,
}

/// Adds an extended error to a reply. Without EDNS in the query there is no place for it.
pub(crate) fn explain(reply: &mut Message, code: Ede, text: &str) {
    if let Some(edns) = &mut reply.edns {
        let mut data = (code as u16).to_be_bytes().to_vec();
        data.extend_from_slice(text.as_bytes());
        edns.options_mut().insert(EdnsOption::Unknown(OPTION_CODE, data));
    }
}
