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
