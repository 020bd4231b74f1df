//! Processors that lie to a workload node, over the real transport.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_fabric::{
    command::Role,
    id::NodeName,
    statement::{Bundle, VoterSet},
    view::View,
};
use selvedge_transport::{
    Alpn, Handler, PeerIdentity, Transport,
    testing::{OpenGate, TestCa},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::hostile::{FABRIC, bundle, set};
use crate::{
    events::Events,
    follow::{Answer, Ask, Follower, QuorumWord, decode, encode, poll::Following},
    identity::{Identity, Machine},
};

const PATIENCE: Duration = Duration::from_secs(30);

/// Hands out what it is told to, to whoever asks for policy.
#[derive(Default)]
struct Liar(Mutex<Option<Bundle>>);

impl Liar {
    fn says(&self, bundle: Bundle) {
        *self.0.lock().expect("nobody panics") = Some(bundle);
    }
}

#[async_trait]
impl Handler for Liar {
    async fn request(&self, _: Option<PeerIdentity>, _: SocketAddr, body: Bytes) -> Result<Bytes, String> {
        match decode(&body)? {
            Ask::Policy { .. } => {}
            Ask::Alive { .. } | Ask::Barrier { .. } | Ask::PolicyOf { .. } => {
                return Err("not today".to_owned());
            }
        }
        let bundle = self.0.lock().expect("nobody panics").as_ref().map(Bundle::encode);
        Ok(encode(&Answer::Policy { bundle, quorum: QuorumWord::default() }).into())
    }
}

fn identity(voters: VoterSet) -> Identity {
    Identity {
        layout: Identity::layout(),
        fabric: "test".parse().expect("a name"),
        fabric_id: FABRIC,
        epoch: 0,
        voters: Some(voters),
        recovery_key: None,
        node: "w1".parse().expect("a name"),
        role: Role::Workload,
        zone: "aws".parse().expect("a zone"),
        machine: Machine::this(),
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        node_cert: Vec::new(),
        contacts: Vec::new(),
    }
}

fn following(follower: &Arc<Follower>, transport: &Transport, events: &Events) -> Arc<Following> {
    Arc::new(Following {
        follower: Arc::clone(follower),
        zone: "aws".parse().expect("a zone"),
        transport: transport.clone(),
        view: watch::channel(Arc::new(View::default())).1,
        events: events.clone(),
    })
}

/// Waits for a `policy-refused` with these words.
async fn refused(events: &Events, words: &str) {
    let seen = || {
        let mut all = events.since(0, usize::MAX).into_iter();
        all.any(|e| e.code == "policy-refused" && e.severity == "security" && e.message.contains(words))
    };
    let waited = tokio::time::timeout(PATIENCE, async {
        while !seen() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    assert!(waited.await.is_ok(), "no event says {words:?}: {:?}", events.since(0, usize::MAX));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_lies_is_seen_and_the_last_good_policy_stays() {
    let (dir, ca) = (tempfile::tempdir().expect("a directory"), TestCa::new("test"));
    let (processor, node) = (ca.transport("p1", Arc::new(OpenGate)), ca.transport("w1", Arc::new(OpenGate)));
    let liar = Arc::new(Liar::default());
    processor.handle(Alpn::Fabric, liar.clone());
    let p1: NodeName = "p1".parse().expect("a name");
    node.book().set(&p1, vec![processor.local_addr()]);

    let (voters, path) = (set(1, [1, 2, 3]), dir.path().join("policy.bundle"));
    let (follower, _) = Follower::open(&identity(voters.clone()), path.clone()).expect("opens");
    let (follower, events, stop) = (Arc::new(follower), Events::default(), CancellationToken::new());
    let task = tokio::spawn(following(&follower, &node, &events).run(stop.clone()));

    // Before there is any policy, nothing but the contacts of the join reply says whom to ask.
    let good = bundle(5, &voters, &[1, 2]);
    let altered = Bundle { policy: bundle(6, &voters, &[1]).policy, ..good.clone() };
    let stranger = bundle(9, &set(1, [7, 8, 9]), &[7, 8, 9]);
    liar.says(altered.clone());
    refused(&events, "another revision").await;
    assert!(follower.policy().borrow().params.is_none(), "nothing was taken");

    liar.says(good);
    let mut policy = follower.policy();
    let taken = tokio::time::timeout(PATIENCE, policy.wait_for(|p| p.revision == 5)).await;
    taken.expect("in time").expect("the follower lives");
    stop.cancel();
    task.await.expect("ends");
    let kept = std::fs::read(&path).expect("kept");

    // The policy knows no processor that could be asked, so what follows asks by hand.
    let following = following(&follower, &node, &events);
    for (lie, words) in [
        (altered, "another revision"),
        (bundle(4, &voters, &[1, 2, 3]), "revision 4"),
        (bundle(8, &voters, &[3]), "1 of 3 voters signed, which is no majority"),
        (Bundle { chain: Vec::new(), ..stranger.clone() }, "the claim is of other voters"),
        (stranger, "the chain of voter sets is broken"),
    ] {
        let before = events.since(0, usize::MAX).len();
        liar.says(lie);
        following.ask_once(&p1).await;
        let told = events.since(0, usize::MAX).split_off(before);
        assert!(told.iter().any(|e| e.code == "policy-refused" && e.subject == "p1"), "{words}: {told:?}");
        assert!(told.iter().any(|e| e.message.contains(words)), "{words}: {told:?}");
        assert_eq!(follower.policy().borrow().revision, 5);
        assert_eq!(std::fs::read(&path).expect("kept"), kept);
    }
    node.close().await;
    processor.close().await;
}
