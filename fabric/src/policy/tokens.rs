//! Tokens: join, service and API tokens. Their secrets never come here.

use super::{PolicyState, apply::Done, graph};
use crate::{
    UnixMs,
    command::{Admit, ApiToken, Change, ChangeAction, JoinToken, Limits, Refusal, ServiceToken, TokenMap},
    id::ServiceRef,
    key::TokenId,
    object::Kind,
};

fn refuse<T>(message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Token(message.into()))
}

impl PolicyState {
    pub(super) fn create_join_token(&mut self, token: &JoinToken, now_ms: UnixMs) -> Result<Done, Refusal> {
        if self.join_tokens.get(&token.id) == Some(token) {
            return Ok(Done::default());
        }
        self.check_new(token.id, token.not_after_ms, now_ms)?;
        if token.uses_left == 0 {
            return refuse("a join token must admit at least one node");
        }
        make_room(&mut self.join_tokens, now_ms, |t| t.not_after_ms)?;
        self.join_tokens.insert(token.id, token.clone());
        let summary = format!("join token for {} {} nodes in {}", token.uses_left, token.role, token.zone);
        Ok(Done::one(ChangeAction::Created, format!("JoinToken {}", token.id), summary))
    }

    pub(super) fn create_service_token(
        &mut self,
        token: &ServiceToken,
        now_ms: UnixMs,
    ) -> Result<Done, Refusal> {
        if self.service_tokens.get(&token.id) == Some(token) {
            return Ok(Done::default());
        }
        self.check_new(token.id, token.not_after_ms, now_ms)?;
        if !self.objects.contains_key(&graph::in_domain(Kind::Service, &token.service)) {
            let near = crate::suggest::closest(&token.service.to_string(), self.identities.keys());
            let remedy = near.map(|near| format!("did you mean {near}?"));
            let remedy = remedy.unwrap_or_else(|| "apply the service first".to_owned());
            return Err(Refusal::NotFound(format!("there is no service {}; {remedy}", token.service)));
        }
        if token.scope.nodes.len() + token.scope.zones.len() > Limits::SCOPE {
            return refuse(format!("the scope names more than {} nodes and zones", Limits::SCOPE));
        }
        make_room(&mut self.service_tokens, now_ms, |t| t.not_after_ms)?;
        self.service_tokens.insert(token.id, token.clone());
        let summary = format!("service token for {}", token.service);
        Ok(Done::one(ChangeAction::Created, format!("ServiceToken {}", token.id), summary))
    }

    pub(super) fn create_api_token(&mut self, token: &ApiToken, now_ms: UnixMs) -> Result<Done, Refusal> {
        if self.api_tokens.get(&token.id) == Some(token) {
            return Ok(Done::default());
        }
        self.check_new(token.id, token.not_after_ms, now_ms)?;
        if !is_actor_name(&token.name) {
            return refuse(format!(
                "the name {:?} must have 1 to 63 of the characters a-z A-Z 0-9 . _ @ -",
                token.name
            ));
        }
        make_room(&mut self.api_tokens, now_ms, |t| t.not_after_ms)?;
        self.api_tokens.insert(token.id, token.clone());
        let summary = format!("API token for {}", token.name);
        Ok(Done::one(ChangeAction::Created, format!("ApiToken {}", token.id), summary))
    }

    /// Ids are unique over all kinds, so that `token revoke` needs no kind.
    fn check_new(&self, id: TokenId, not_after_ms: UnixMs, now_ms: UnixMs) -> Result<(), Refusal> {
        let taken = self.join_tokens.contains_key(&id)
            || self.service_tokens.contains_key(&id)
            || self.api_tokens.contains_key(&id);
        if taken {
            return refuse(format!("there is another token with the id {id}; make one with a new id"));
        }
        if not_after_ms <= now_ms {
            return refuse(format!("the token {id} would have ended before it was made; check the clocks"));
        }
        Ok(())
    }

    pub(super) fn revoke_token(&mut self, id: TokenId) -> Result<Done, Refusal> {
        let kind = if self.join_tokens.remove(&id).is_some() {
            "JoinToken"
        } else if self.service_tokens.remove(&id).is_some() {
            "ServiceToken"
        } else if self.api_tokens.remove(&id).is_some() {
            "ApiToken"
        } else {
            return Err(Refusal::NotFound(format!("there is no token {id}; see selvedge token list")));
        };
        Ok(Done::one(ChangeAction::Deleted, format!("{kind} {id}"), format!("{kind} {id} revoked")))
    }

    /// Revokes every token of a service that goes.
    pub(super) fn revoke_tokens_of(&mut self, service: &ServiceRef) -> Vec<Change> {
        let of_service = self.service_tokens.values().filter(|token| token.service == *service);
        let ids: Vec<TokenId> = of_service.map(|token| token.id).collect();
        let revoke = |id: TokenId| {
            self.service_tokens.remove(&id);
            Done::one(ChangeAction::Deleted, format!("ServiceToken {id}"), String::new()).changes
        };
        ids.into_iter().flat_map(revoke).collect()
    }

    /// Whether a join token admits this node now. That the node knows the secret was checked by the
    /// processor that took the join.
    pub(super) fn check_join_token(&self, id: TokenId, admit: &Admit, now_ms: UnixMs) -> Result<(), Refusal> {
        let Some(token) = self.join_tokens.get(&id) else {
            return refuse(format!("the join token {id} is not known; it may have been revoked"));
        };
        if token.not_after_ms <= now_ms {
            return refuse(format!("the join token {id} has expired; make a new one (selvedge token join)"));
        }
        if token.uses_left == 0 {
            return refuse(format!("the join token {id} is used up; make a new one (selvedge token join)"));
        }
        if token.role != admit.role {
            return refuse(format!("the join token {id} is for a {}, not for a {}", token.role, admit.role));
        }
        if token.zone != admit.zone {
            return refuse(format!("the join token {id} is for the zone {}, not {}", token.zone, admit.zone));
        }
        Ok(())
    }

    pub(super) fn use_join_token(&mut self, id: TokenId) {
        if let Some(token) = self.join_tokens.get_mut(&id) {
            token.uses_left = token.uses_left.saturating_sub(1);
        }
    }
}

/// Refuses a token beyond the limit, after expired ones have made room.
fn make_room<T>(
    tokens: &mut TokenMap<T>,
    now_ms: UnixMs,
    not_after_ms: impl Fn(&T) -> UnixMs,
) -> Result<(), Refusal> {
    if tokens.len() >= Limits::TOKENS {
        tokens.retain(|_, token| not_after_ms(token) > now_ms);
    }
    if tokens.len() < Limits::TOKENS {
        return Ok(());
    }
    Err(Refusal::Limit(format!(
        "the fabric holds {} tokens of this kind, the most it may; revoke some (selvedge token revoke)",
        Limits::TOKENS
    )))
}

/// Names of API tokens appear as actors beside `local:<uid>` and `node:<name>`: a colon would let one
/// pass for the other.
pub(super) fn is_actor_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '@' | '-');
    (1..=crate::id::MAX_NAME_BYTES).contains(&name.len()) && name.chars().all(fits)
}
