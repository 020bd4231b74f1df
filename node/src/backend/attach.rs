//! Attachments.

use selvedge_fabric::id::EndpointId;

use super::{
    Node, Result,
    endpoints::{parse_registration, register_error},
};
use crate::{
    api::{ApiError, Caller, Code, types},
    attach::{AttachError, Place, Request, store::Attachment},
    packets::PacketError,
};

impl Node {
    pub(super) async fn list_attachments(&self) -> Vec<types::Attachment> {
        self.attachments.list().await.into_iter().map(attachment).collect()
    }

    pub(super) async fn attach_workload(
        &self,
        caller: &Caller,
        request: types::AttachRequest,
    ) -> Result<types::AttachReply> {
        let registration = parse_registration(caller, &request.endpoint)?;
        if let Some(port) = registration.ports.iter().find(|port| port.local != port.contract) {
            return Err(ApiError::bad_request(format!(
                "ports: {}/{} cannot lead to {} where packets are enforced",
                port.protocol, port.contract, port.local
            ))
            .remedy("listen on the port that the contract names"));
        }
        let place = match request.place {
            types::AttachPlace::Netns(path) => Place::Netns(path.into()),
            types::AttachPlace::Pid(pid) => Place::Pid(pid),
            types::AttachPlace::Interface(name) => Place::Interface(name),
            types::AttachPlace::Group => Place::Group,
        };
        let mut request = Request { registration, place, resolver: !request.keep_resolver };
        let mut outcome = self.attachments.attach(&request).await;
        if is_behind(&outcome) && self.source.barrier(super::WRITE_TIMEOUT).await.is_ok() {
            // Token or service may have been made a moment ago on another node.
            outcome = self.attachments.attach(&request).await;
        }
        let attached = outcome.map_err(|e| attach_error(&e))?;
        let mut warnings = attached.warnings;
        request.registration.id = Some(attached.attachment.endpoint.clone());
        warnings.extend(self.warnings(&request.registration));
        Ok(types::AttachReply {
            attachment: attachment(attached.attachment),
            gateways: attached.gateways.iter().map(ToString::to_string).collect(),
            warnings,
        })
    }

    pub(super) async fn detach_workload(&self, _caller: &Caller, endpoint: &str) -> Result<()> {
        let id = endpoint.parse::<EndpointId>().map_err(|e| ApiError::bad_request(e.to_string()))?;
        self.attachments.detach(&id).await.map_err(|e| attach_error(&e))
    }
}

/// Whether a refusal may come from a policy that is not the newest.
const fn is_behind<T>(outcome: &std::result::Result<T, AttachError>) -> bool {
    use crate::endpoints::RegisterError;
    matches!(
        outcome,
        Err(AttachError::Register(RegisterError::Refused(_))
            | AttachError::Enforce(PacketError::UnknownService(..)))
    )
}

fn attachment(attachment: Attachment) -> types::Attachment {
    types::Attachment {
        endpoint: attachment.endpoint.to_string(),
        service: attachment.service.to_string(),
        place: match attachment.place {
            Place::Netns(path) => types::AttachPlace::Netns(path.display().to_string()),
            Place::Pid(pid) => types::AttachPlace::Pid(pid),
            Place::Interface(name) => types::AttachPlace::Interface(name),
            Place::Group => types::AttachPlace::Group,
        },
        interface: attachment.interface,
        addresses: attachment.addresses.iter().map(ToString::to_string).collect(),
        group: attachment.group.map(|group| group.directory.display().to_string()),
    }
}

fn attach_error(error: &AttachError) -> ApiError {
    let code = match error {
        AttachError::Register(error) => return register_error(error),
        AttachError::Namespace(_) | AttachError::Own(_) => Code::BadRequest,
        AttachError::Wire(_) | AttachError::Resolver(_) | AttachError::Gateway(_) => Code::Refused,
        AttachError::Group(_) => Code::Refused,
        AttachError::Enforce(_) => Code::Unavailable,
        AttachError::Store(_) => Code::Internal,
        AttachError::Limit => Code::Limit,
        AttachError::Attached(_) => Code::Conflict,
        AttachError::Unknown(_) => Code::NotFound,
    };
    ApiError::new(code, error.to_string())
}
