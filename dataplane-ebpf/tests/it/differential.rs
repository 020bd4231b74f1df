//! The programs in the kernel and the twin judge alike: the same verdict and the same reason for every
//! frame, whatever it is, in the middle of flows and changes of policy.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_dataplane::{
    Dataplane, Probe, TableImage, Twin,
    abi::{Attachment, Direction, Reason},
};

use crate::{
    frames,
    support::{LOOPBACK, Rng, in_kernel, me, random_plan, seed, unpinned},
};

/// Frames that are judged twice; `SELVEDGE_FUZZ_FRAMES` asks for more.
const FRAMES: usize = 1_000_000;
/// Frames of a round. Every round begins without flows, so that what fails can be had again.
const ROUND: usize = 20_000;
/// Frames between two changes of policy.
const PER_POLICY: usize = 4_000;

/// What happens to both.
#[derive(Debug, Clone)]
enum Step {
    Frame(Direction, Vec<u8>),
    Policy(Arc<TableImage>),
}

/// Both data planes with one workload attached.
struct Pair {
    kernel: Dataplane,
    probe: Probe,
    twin: Twin,
    attachment: Attachment,
}

impl Pair {
    fn new() -> Self {
        let mut kernel = unpinned();
        kernel.attach_interface(LOOPBACK, me()).unwrap();
        let probe = kernel.probe().unwrap();
        Self { kernel, probe, twin: Twin::default(), attachment: me().attachment(0) }
    }

    /// Forgets all flows.
    fn reset(&mut self) {
        let places: Vec<_> = self.kernel.attachments().map(|attached| attached.place).collect();
        for place in places {
            self.kernel.detach(place).unwrap();
        }
        self.kernel.attach_interface(LOOPBACK, me()).unwrap();
        self.twin.forget(0);
    }

    /// Both verdicts.
    fn step(&mut self, step: &Step) -> [(bool, Reason); 2] {
        match step {
            Step::Policy(image) => {
                self.kernel.sync(TableImage::clone(image)).unwrap();
                self.twin.sync(Arc::clone(image));
                [(true, Reason::Flow); 2]
            }
            Step::Frame(direction, frame) => {
                let kernel = self.probe.judge(LOOPBACK, *direction, frame, 1);
                let twin = self.twin.judge_frame(frame, *direction, &self.attachment, now_s()).verdict;
                // Linux 6.18 does not hand a program less than an IP header in a test.
                let kernel = match kernel {
                    Err(_) if frame.len() < ip_header_end(frame) => (false, Reason::Truncated),
                    kernel => kernel.unwrap(),
                };
                [kernel, (twin.allow, twin.reason)]
            }
        }
    }

    /// Whether the last of these steps, begun without flows, is judged differently.
    fn differs(&mut self, steps: &[Step]) -> bool {
        self.reset();
        let verdicts = steps.iter().map(|step| self.step(step)).last();
        verdicts.is_some_and(|[kernel, twin]| kernel != twin)
    }
}

/// Where the fixed IP header of a frame ends.
fn ip_header_end(frame: &[u8]) -> usize {
    match frame[12..14] {
        [0x08, 0x00] => 14 + 20,
        [0x86, 0xdd] => 14 + 40,
        _ => 0,
    }
}

/// Seconds of the clock that the programs read.
fn now_s() -> u32 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec as u32
}

#[test]
fn kernel_and_twin_judge_alike() {
    in_kernel(|| {
        let frames =
            std::env::var("SELVEDGE_FUZZ_FRAMES").ok().and_then(|n| n.parse().ok()).unwrap_or(FRAMES);
        let mut rng = Rng::new(seed());
        let mut pair = Pair::new();
        let mut reasons: BTreeMap<(bool, Reason), usize> = BTreeMap::new();
        let mut done = 0;
        while done < frames {
            let steps = round(&mut rng, done as u64);
            pair.reset();
            for (place, step) in steps.iter().enumerate() {
                let [kernel, twin] = pair.step(step);
                assert!(kernel == twin, "{}", report(&mut pair, &steps[..=place], kernel, twin));
                *reasons.entry(kernel).or_default() += 1;
            }
            done += ROUND;
        }
        eprintln!("{done} frames judged alike: {reasons:?}");
        let rare = [Reason::Own, Reason::UnknownCode, Reason::NotAttached, Reason::NoTables];
        let missed =
            Reason::ALL.iter().filter(|r| !rare.contains(r) && !reasons.keys().any(|(_, k)| k == *r));
        assert_eq!(missed.collect::<Vec<_>>(), Vec::<&Reason>::new(), "the frames must reach every reason");
    });
}

fn round(rng: &mut Rng, revision: u64) -> Vec<Step> {
    let mut steps = Vec::with_capacity(ROUND + ROUND / PER_POLICY);
    for n in 0..ROUND {
        if n % PER_POLICY == 0 {
            let image = TableImage::new(&random_plan(revision, rng)).unwrap();
            steps.push(Step::Policy(Arc::new(image)));
        }
        let leaving = rng.chance(2);
        let direction = if leaving { Direction::Leaving } else { Direction::Arriving };
        steps.push(Step::Frame(direction, frames::random(rng, leaving)));
    }
    steps
}

/// The shortest history that still ends in a difference.
fn report(pair: &mut Pair, steps: &[Step], kernel: (bool, Reason), twin: (bool, Reason)) -> String {
    let mut steps = steps.to_vec();
    if !pair.differs(&steps) {
        return format!("kernel {kernel:?}, twin {twin:?}, but not again: {:?}", steps.last());
    }
    let mut chunk = steps.len() / 2;
    while chunk > 0 {
        let mut start = 0;
        while start + chunk < steps.len() {
            let without = [&steps[..start], &steps[start + chunk..]].concat();
            if pair.differs(&without) {
                steps = without;
            } else {
                start += chunk;
            }
        }
        chunk /= 2;
    }
    let show = |step: &Step| match step {
        Step::Policy(_) => "policy".to_owned(),
        Step::Frame(direction, frame) => {
            let hex: String = frame.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{direction:?} {hex}")
        }
    };
    let history: Vec<_> = steps.iter().map(show).collect();
    format!("kernel {kernel:?}, twin {twin:?} after:\n  {}", history.join("\n  "))
}
