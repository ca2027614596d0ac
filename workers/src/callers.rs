//! The threads that make the calls that the stage `upstream` orders: for each service as many as may be under way at once. They wait for
//! outsiders, so they are not joined at the stop.

use std::io;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};

use crate::crew::{Post, give, report, run_as};
use crate::jobs::{Stage, UpstreamJob};
use crate::limits::{BITCOIND_CALLERS, ORDERS_PER_SERVICE_MAX};
use crate::outside::Outside;
use crate::outside::call::{Order, Service};

/// What keeps portfolios, and the client that asks for it.
pub struct Upstream {
    /// The stage `upstream`. It has at most [`crate::limits::ORDERS_MAX`] orders out, [`ORDERS_PER_SERVICE_MAX`] of them for one service.
    pub stage: Box<dyn Stage<Job = UpstreamJob> + Send>,
    /// The client.
    pub outside: Arc<Outside>,
}

/// Spawns them all. Where to give each service's orders.
pub(crate) fn spawn(
    outside: &Arc<Outside>,
    stage: &Arc<Sender<Vec<UpstreamJob>>>,
    post: &Post,
) -> io::Result<Vec<(Service, Sender<Order>)>> {
    let mut orders = Vec::new();
    for service in Service::ALL {
        let (order, ordered) = bounded(ORDERS_PER_SERVICE_MAX);
        let callers = if service == Service::Bitcoind { BITCOIND_CALLERS } else { outside.limits(service).places() };
        for n in 0..callers {
            let (outside, ordered, post) = (Arc::clone(outside), ordered.clone(), post.clone());
            // Whether the stage has ended shows by its inbox, which must not be held open here.
            let stage = Arc::downgrade(stage);
            run_as(format!("{}-{n}", service.name()), service.name(), &post.clone(), move || {
                serve(&outside, &ordered, |brought| match stage.upgrade() {
                    None => false,
                    Some(stage) => match give(&stage, vec![brought]) {
                        Ok(()) => true,
                        Err(why) => {
                            report(&post, "upstream", why);
                            false
                        }
                    },
                });
            })?;
        }
        orders.push((service, order));
    }
    Ok(orders)
}

/// A caller's life: one call after the other, until nobody orders any more.
fn serve(outside: &Outside, ordered: &Receiver<Order>, bring: impl Fn(UpstreamJob) -> bool) {
    for Order { id, call } in ordered {
        if !bring(UpstreamJob::Brought { order: id, result: outside.call(&call) }) {
            return;
        }
    }
}

/// Hands orders over without waiting.
pub(crate) fn order(to: &[(Service, Sender<Order>)], orders: impl Iterator<Item = Order>) -> Result<(), String> {
    for order in orders {
        let service = order.call.service;
        let Some((_, to)) = to.iter().find(|(other, _)| *other == service) else { continue };
        if let Err(TrySendError::Full(_)) = to.try_send(order) {
            return Err(format!("more than {ORDERS_PER_SERVICE_MAX} orders wait for {}, a defect", service.name()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::collections::BTreeMap;
    use std::time::Duration;

    use rockpool_net::frame::http::{Method, Request};
    use rockpool_net::hub::io::Mail;
    use rockpool_net::hub::tickets::Ticket;
    use rockpool_net::id::Lane;
    use rockpool_net::limits::TICKETS_HTTP;
    use rockpool_net::reactor::Clock;
    use rockpool_net::time::Now;
    use rockpool_store::chain::Chain;
    use rockpool_store::kv::MemKv;
    use rockpool_store::pplns::Pplns;
    use serde_json::json;

    use super::*;
    use crate::crew::{Bitcoin, Crew, CrewConfig};
    use crate::embedded::EmbeddedChain;
    use crate::jobs::{Answer, Jobs, Output, Stages};
    use crate::limits::{BITCOIND_IN_FLIGHT, IN_FLIGHT_MAX, MAILBOX_SLOTS, MINED_SLOTS, ORDERS_MAX, UPSTREAM_SLOTS};
    use crate::outside::call::{Call, CallError, What};
    use crate::outside::fake::{FakeService, Fault, Reply};
    use crate::outside::gate::Limits;
    use crate::outside::{BitcoindConfig, OutsideConfig};
    use crate::testing::{conn, regtest};

    const SOON: Duration = Duration::from_secs(30);

    type Told = (u64, Result<Vec<u8>, CallError>);

    /// A stage that orders all that it may when asked for "/order", answers all else at once, and passes on what is brought.
    struct Orders {
        url: String,
        brought: Sender<Told>,
        orders: usize,
    }

    impl Stage for Orders {
        type Job = UpstreamJob;

        fn step(&mut self, _: Now, jobs: &mut Vec<UpstreamJob>, out: &mut Output) {
            for job in jobs.drain(..) {
                match job {
                    UpstreamJob::Ask { conn, tag, request, ticket } => {
                        if &*request.path == "/order" {
                            for n in 0..self.orders {
                                let service = Service::ALL[n / ORDERS_PER_SERVICE_MAX];
                                out.orders.push(Order { id: n as u64, call: call(service, &self.url) });
                            }
                        }
                        let told = Answer::Told { conn, tag, status: 200, body: Vec::new(), lines: Vec::new() };
                        out.mail.push((told, vec![ticket]));
                    }
                    UpstreamJob::Mined(_) => out.mail.push((Answer::MinedHeard, Vec::new())),
                    UpstreamJob::Brought { order, result } => self.brought.send((order, result)).unwrap(),
                }
            }
        }
    }

    fn call(service: Service, url: &str) -> Call {
        let what = What::Http { url: url.to_owned(), headers: Arc::new(|_| Vec::new()), body: None };
        Call { service, endpoint: "x".into(), what, idempotent: false, deadline: SOON, bytes_max: 1_000 }
    }

    fn ask(slot: u32, path: &str) -> UpstreamJob {
        let request = Box::new(Request::new(Method::Get, path));
        UpstreamJob::Ask { conn: conn(slot), tag: slot.into(), request, ticket: Ticket::for_test(Lane::Http, conn(slot)) }
    }

    /// A client that asks as fast as it can.
    fn outside() -> Outside {
        let limits = Service::ALL.map(|service| (service, Limits { delay: Duration::ZERO, ..Limits::of(service) })).to_vec();
        Outside::new(OutsideConfig { clock: Clock::start(), seed: 1, limits, bitcoind: None })
    }

    /// A crew with such a stage, its mail, and what its stage is brought.
    fn crew(orders: usize, url: &str) -> (Crew, Receiver<Vec<Mail<Answer>>>, Receiver<Told>) {
        let (post, mail) = bounded(MAILBOX_SLOTS);
        let (brought, told) = bounded(ORDERS_MAX + 1);
        let kv = Arc::new(MemKv::new());
        let chain = Chain::open(regtest(), [1, 2], &*kv).unwrap();
        let stage = Orders { url: url.to_owned(), brought, orders };
        let config = CrewConfig {
            params: regtest(),
            clock: Clock::start(),
            cores: 1,
            kv,
            chain,
            pplns: Pplns::default(),
            post: Arc::new(move |message| post.try_send(message).is_ok()),
            bitcoin: Bitcoin::Embedded(Arc::new(EmbeddedChain::new(regtest(), None))),
            upstream: Some(Upstream { stage: Box::new(stage), outside: Arc::new(outside()) }),
        };
        (Crew::start(config).unwrap(), mail, told)
    }

    /// Waits for the answer to a request.
    fn told(mail: &Receiver<Vec<Mail<Answer>>>, slot: u32) {
        loop {
            for Mail { answer, .. } in mail.recv_timeout(SOON).unwrap() {
                match answer {
                    Answer::Told { conn: found, .. } if found == conn(slot) => return,
                    Answer::Died { stage, why } => panic!("{stage}: {why}"),
                    _ => {}
                }
            }
        }
    }

    #[test]
    fn every_order_is_brought_once_and_requests_are_answered_meanwhile() {
        let (open, gate) = bounded::<()>(0);
        let service = FakeService::start(move |asked| Reply::json(&json!(asked.number)).fault(Fault::Gate(gate.clone())));
        // The fourth service is the last that there are orders for; the fifth would be bitcoind, of which there is none.
        let (mut crew, mail, brought) = crew(ORDERS_MAX, &service.url());
        assert_eq!(ORDERS_MAX, 4 * ORDERS_PER_SERVICE_MAX);
        crew.give(&mut Jobs { upstream: vec![ask(1, "/order")], ..Jobs::default() });
        told(&mail, 1);
        // All that may be in flight is; all else waits, and so does nobody who asks.
        while service.calls() < 5 + 3 + 5 + 1 {
            std::thread::yield_now();
        }
        crew.give(&mut Jobs { upstream: vec![ask(2, "/other")], ..Jobs::default() });
        told(&mail, 2);
        assert_eq!((service.calls(), service.most_in_flight(), brought.len()), (14, 14, 0));
        assert!(crew.queues().iter().any(|queue| queue.name == "upstream" && queue.slots == UPSTREAM_SLOTS));
        drop(open);
        let mut count = BTreeMap::new();
        for _ in 0..ORDERS_MAX {
            let (order, result) = brought.recv_timeout(SOON).unwrap();
            assert!(result.is_ok(), "{result:?}");
            *count.entry(order).or_insert(0) += 1;
        }
        assert_eq!(count, (0..ORDERS_MAX as u64).map(|order| (order, 1)).collect());
        assert!(service.most_in_flight() <= 14);
        crew.stop().unwrap();
        assert!(brought.recv_timeout(SOON).is_err(), "the stage has ended, and none came twice");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_service_that_hangs() {
        let service = FakeService::start(|_| Reply::status(200).fault(Fault::Hang));
        let (mut crew, mail, brought) = crew(ORDERS_PER_SERVICE_MAX, &service.url());
        crew.give(&mut Jobs { upstream: vec![ask(1, "/order")], ..Jobs::default() });
        told(&mail, 1);
        while service.calls() < 5 {
            std::thread::yield_now();
        }
        crew.stop().unwrap();
        // Those that waited were told so, if the stage was still there to hear it; those under way still are.
        assert!(brought.try_iter().all(|(_, result)| result == Err(CallError::Stopped)));
        assert_eq!(service.calls(), 5);
    }

    #[test]
    fn one_order_too_many_is_a_defect_that_ends_the_node_and_not_one_that_waits() {
        let (to, waiting) = bounded(ORDERS_PER_SERVICE_MAX);
        let orders = [(Service::Evm, to)];
        let some = |count: u64| (0..count).map(|id| Order { id, call: call(Service::Evm, "") });
        assert_eq!(order(&orders, some(ORDERS_PER_SERVICE_MAX as u64)), Ok(()));
        assert!(order(&orders, some(1)).unwrap_err().ends_with("evm, a defect"));
        drop(waiting);
        assert_eq!(order(&orders, some(1)), Ok(()), "whoever was to make it is gone, and told of");
    }

    #[test]
    fn names_fit_into_what_the_system_keeps() {
        for service in Service::ALL {
            assert!(format!("{}-{}", service.name(), IN_FLIGHT_MAX - 1).len() <= 15, "{}", service.name());
        }
    }

    #[test]
    fn all_that_can_be_under_way_finds_room_at_the_stage() {
        let (stage, inbox) = bounded(UPSTREAM_SLOTS);
        let brought = |order| UpstreamJob::Brought { order, result: Err(CallError::Timeout) };
        (0..TICKETS_HTTP).for_each(|slot| give(&stage, vec![ask(slot as u32, "/")]).unwrap());
        (0..ORDERS_MAX).for_each(|order| give(&stage, vec![brought(order as u64)]).unwrap());
        // `Mined` is as good as any.
        (0..MINED_SLOTS).for_each(|_| give(&stage, vec![brought(0)]).unwrap());
        assert!(give(&stage, vec![brought(0)]).is_err(), "all were needed");
        assert_eq!(inbox.len(), UPSTREAM_SLOTS);
    }

    #[test]
    fn bitcoind_is_asked_for_portfolios_by_few_at_a_time() {
        // As bitcoind answers; the gate holds what was asked.
        let (open, gate) = bounded::<()>(0);
        let service = FakeService::start(move |asked| {
            let reply = match asked.json()["method"].as_str() {
                Some("scantxoutset") => json!({"result": {"total_amount": 1.5}, "error": null, "id": "rockpool"}),
                _ => json!({"result": null, "error": {"code": -32601, "message": "Method not found"}, "id": "rockpool"}),
            };
            Reply::json(&reply).fault(Fault::Gate(gate.clone()))
        });
        let bitcoind = BitcoindConfig::new(&format!("http://u:p@{}", service.host()), None, regtest().network).unwrap();
        let config = OutsideConfig { clock: Clock::start(), seed: 1, limits: Vec::new(), bitcoind: Some(bitcoind) };
        let outside = Arc::new(Outside::new(config));
        let (jobs, inbox) = bounded(UPSTREAM_SLOTS);
        let jobs = Arc::new(jobs);
        let post: Post = Arc::new(|_| true);
        let orders = spawn(&outside, &jobs, &post).unwrap();
        let methods = ["scantxoutset", "nonsense", "scantxoutset"];
        let wanted = methods.iter().enumerate().map(|(id, method)| {
            let what = What::Rpc { method, params: json!([]) };
            Order { id: id as u64, call: Call { what, ..call(Service::Bitcoind, "") } }
        });
        order(&orders, wanted).unwrap();
        while service.calls() < BITCOIND_CALLERS {
            std::thread::yield_now();
        }
        let places = outside.gauges()[Service::Bitcoind as usize].limits.in_flight;
        assert_eq!((service.calls(), places), (BITCOIND_CALLERS, BITCOIND_IN_FLIGHT), "the others are for the node");
        drop(open);
        let mut results: Vec<Told> = Vec::new();
        while results.len() < methods.len() {
            results.extend(inbox.recv_timeout(SOON).unwrap().into_iter().map(|job| match job {
                UpstreamJob::Brought { order, result } => (order, result),
                other => panic!("{other:?}"),
            }));
        }
        assert_eq!(results[0], (0, Ok(br#"{"total_amount":1.5}"#.to_vec())));
        assert_eq!(results[1], (1, Err(CallError::Refused("error -32601: Method not found".into()))));
        assert_eq!((results[2].0, service.most_in_flight()), (2, BITCOIND_CALLERS));
    }
}
