use proptest::prelude::*;

use super::*;

const A: Site = Site(0);
const B: Site = Site(1);
const MS: Duration = Duration::from_millis(1);

/// A frame that arrived: when, where, what.
type Arrival = (Duration, Site, Vec<u8>);

fn wide(conditions: Conditions) -> Wide {
    Wide::new(7, conditions).expect("conditions")
}

/// Everything that arrives, with its time.
fn arrivals(wide: &mut Wide) -> Vec<Arrival> {
    let mut all = Vec::new();
    while let Some(due) = wide.next_due() {
        let (to, frame) = wide.pop(due).expect("it is due");
        all.push((due, to, frame));
    }
    all
}

#[test]
fn an_ideal_way_changes_nothing() {
    let mut wide = wide(Conditions::IDEAL);
    for n in 0..100 {
        wide.push(MS * n, A, B, vec![n as u8]);
    }
    let expected: Vec<_> = (0..100_u32).map(|n| (MS * n, B, vec![n as u8])).collect();
    assert_eq!(arrivals(&mut wide), expected);
    assert_eq!(wide.tally(A, B), Tally { sent: 100, delivered: 100, ..Tally::default() });
    assert_eq!(wide.tally(B, A), Tally::default());
}

#[test]
fn nothing_arrives_early() {
    let mut wide = wide(Conditions { delay: MS * 40, ..Conditions::IDEAL });
    wide.push(MS, A, B, vec![1]);
    assert_eq!(wide.next_due(), Some(MS * 41));
    assert_eq!(wide.pop(MS * 40), None);
    assert_eq!(wide.pop(MS * 41), Some((B, vec![1])));
    assert_eq!(wide.next_due(), None);
}

#[test]
fn an_ordinary_day_is_as_announced() {
    const SENT: u32 = 100_000;
    let mut wide = wide(Conditions::ORDINARY);
    for n in 0..SENT {
        wide.push(MS * n, A, B, n.to_be_bytes().to_vec());
    }
    let all = arrivals(&mut wide);
    let tally = wide.tally(A, B);
    assert_eq!(all.len() as u64, tally.delivered);
    assert_eq!(tally.delivered, tally.sent - tally.lost + tally.doubled);
    assert!((300..=700).contains(&tally.lost), "{tally:?}");
    assert!((50..=150).contains(&tally.doubled), "{tally:?}");
    let numbers: Vec<_> = all.iter().map(|(_, _, f)| u32::from_be_bytes([f[0], f[1], f[2], f[3]])).collect();
    let overtaken = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    assert!((500..=1_500).contains(&overtaken), "{overtaken}");
    for ((due, _, _), number) in all.iter().zip(&numbers) {
        let took = *due - MS * *number;
        assert!(took >= MS * 35 && took <= MS * 65, "{took:?}");
    }
}

#[test]
fn a_rate_spreads_frames_and_drops_what_would_wait_too_long() {
    // 1,000 bytes a millisecond.
    let mut wide = wide(Conditions { rate: Some(8_000_000), ..Conditions::IDEAL });
    for n in 0..200 {
        wide.push(Duration::ZERO, A, B, vec![n; 1_000]);
    }
    let all = arrivals(&mut wide);
    assert_eq!(all.len() as u64, 101);
    assert!(all.iter().zip(1..).all(|((due, _, _), n)| *due == MS * n), "{:?}", all[0]);
    assert_eq!(wide.tally(A, B).crowded_out, 99);
}

#[test]
fn a_cut_takes_what_is_under_way_and_one_direction_alone() {
    let mut wide = wide(Conditions { delay: MS, ..Conditions::IDEAL });
    wide.push(Duration::ZERO, A, B, vec![1]);
    wide.push(Duration::ZERO, B, A, vec![2]);
    wide.cut(A, B, true);
    wide.push(Duration::ZERO, A, B, vec![3]);
    assert_eq!(arrivals(&mut wide), [(MS, A, vec![2])]);
    assert_eq!(wide.tally(A, B), Tally { sent: 2, cut: 2, ..Tally::default() });
    wide.cut(A, B, false);
    wide.push(MS, A, B, vec![4]);
    assert_eq!(arrivals(&mut wide), [(MS * 2, B, vec![4])]);
}

#[test]
fn there_is_a_limit_to_what_is_under_way() {
    const FRAME_BYTES: usize = 1 << 20;
    let mut wide = wide(Conditions { delay: MS, duplicate: 1.0, ..Conditions::IDEAL });
    for _ in 0..MAX_UNDER_WAY_BYTES / FRAME_BYTES {
        wide.push(Duration::ZERO, A, B, vec![0; FRAME_BYTES]);
    }
    let tally = wide.tally(A, B);
    assert_eq!(tally.crowded_out, tally.sent / 2);
    // The other direction has its own.
    wide.push(Duration::ZERO, B, A, vec![0]);
    assert_eq!(wide.tally(B, A).crowded_out, 0);
    while wide.pop(MS).is_some() {}
    wide.push(MS, A, B, vec![0]);
    assert_eq!(wide.tally(A, B).crowded_out, tally.crowded_out);
}

#[test]
fn what_is_no_probability_is_refused() {
    for wrong in [-0.1, 1.1, f64::NAN] {
        let conditions = Conditions { reorder: wrong, ..Conditions::IDEAL };
        assert!(Wide::new(0, conditions).is_err());
        assert!(wide(Conditions::IDEAL).set(A, B, conditions).is_err());
    }
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let part = || prop_oneof![Just(0.0), 0.0..=1.0];
    let times = (0..500_u32, 0..800_u32).prop_map(|(delay, jitter)| (MS * delay, MS * jitter));
    let rate = proptest::option::of(0..100_000_000_u64);
    (times, part(), part(), part(), rate).prop_map(|((delay, jitter), loss, reorder, duplicate, rate)| {
        Conditions { delay, jitter, loss, reorder, duplicate, rate }
    })
}

#[derive(Debug, Clone)]
enum Step {
    Push(u8, u8, usize),
    Wait(u32),
    Cut(u8, u8, bool),
    Set(u8, u8, Conditions),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let site = 0..3_u8;
    let step = prop_oneof![
        8 => (site.clone(), site.clone(), 0..2_000_usize).prop_map(|(a, b, n)| Step::Push(a, b, n)),
        4 => (0..100_u32).prop_map(Step::Wait),
        1 => (site.clone(), site.clone(), any::<bool>()).prop_map(|(a, b, cut)| Step::Cut(a, b, cut)),
        1 => (site.clone(), site, conditions()).prop_map(|(a, b, c)| Step::Set(a, b, c)),
    ];
    proptest::collection::vec(step, 0..200)
}

fn replay(seed: u64, first: Conditions, steps: &[Step]) -> (Vec<Arrival>, Vec<Tally>) {
    let mut wide = Wide::new(seed, first).expect("conditions");
    let (mut now, mut all) = (Duration::ZERO, Vec::new());
    for step in steps {
        match *step {
            Step::Push(a, b, bytes) => wide.push(now, Site(a), Site(b), vec![a; bytes]),
            Step::Wait(ms) => now += MS * ms,
            Step::Cut(a, b, cut) => wide.cut(Site(a), Site(b), cut),
            Step::Set(a, b, conditions) => wide.set(Site(a), Site(b), conditions).expect("conditions"),
        }
        while let Some((to, frame)) = wide.pop(now) {
            all.push((now, to, frame));
        }
    }
    all.extend(arrivals(&mut wide));
    let pairs = (0..9).map(|n| (Site(n / 3), Site(n % 3)));
    let tallies = pairs.map(|(from, to)| wide.tally(from, to)).collect();
    assert!(wide.ways.values().all(|way| way.under_way_bytes == 0));
    (all, tallies)
}

proptest! {
    #[test]
    fn no_frame_comes_from_nowhere_and_each_is_accounted_for(
        seed: u64, first in conditions(), steps in steps(),
    ) {
        let (all, tallies) = replay(seed, first, &steps);
        prop_assert!(all.windows(2).all(|pair| pair[0].0 <= pair[1].0));
        for tally in &tallies {
            let gone = tally.delivered + tally.lost + tally.crowded_out + tally.cut;
            prop_assert_eq!(gone, tally.sent + tally.doubled);
        }
        prop_assert_eq!(all.len() as u64, tallies.iter().map(|tally| tally.delivered).sum::<u64>());
        // By the same seed, again.
        prop_assert_eq!(replay(seed, first, &steps), (all, tallies));
    }

    #[test]
    fn without_reordering_order_is_kept(seed: u64, first in conditions(), gaps in proptest::collection::vec(0..20_u32, 0..100)) {
        let mut wide = Wide::new(seed, Conditions { reorder: 0.0, ..first }).expect("conditions");
        let mut now = Duration::ZERO;
        for (n, gap) in (0_u8..).zip(gaps) {
            now += MS * gap;
            wide.push(now, A, B, vec![n]);
        }
        let all = arrivals(&mut wide);
        prop_assert!(all.windows(2).all(|pair| pair[0].2 <= pair[1].2));
    }
}
