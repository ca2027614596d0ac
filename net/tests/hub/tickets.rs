//! Tickets: who gets none waits alone, and every ticket comes home.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use crate::common::{HTTP, STRATUM, World, config, lines, secs};
use rockpool_net::hub::io::{Input, Mail};
use rockpool_net::hub::tickets::Ticket;
use rockpool_net::id::{ConnId, Lane};
use rockpool_net::limits::{
    FRAMES_A_ROUND, LINE_BYTES_MAX, TICKET_BYTES_STRATUM, TICKETS_HTTP, TICKETS_PER_BROWSER, TICKETS_PER_MINER, TICKETS_STRATUM,
};
use rockpool_net::pipes::Weather;

/// A node that keeps the tickets of all frames of a lane, as jobs do whose stage is busy.
fn keeping(world: &mut World, lane: Lane) -> Rc<RefCell<Vec<Ticket>>> {
    let kept = Rc::new(RefCell::new(Vec::new()));
    let keep = Rc::clone(&kept);
    world.nodes[0].hook = Box::new(move |_, input, out| {
        if matches!(input, Input::Frame { .. })
            && let Some(ticket) = out.take_ticket()
        {
            assert!(out.take_ticket().is_none(), "one ticket, taken once");
            if ticket.lane() == lane { keep.borrow_mut().push(ticket) } else { out.home(ticket) }
        }
        if matches!(input, Input::Answer(_) | Input::Opened { .. }) {
            assert!(out.take_ticket().is_none(), "only frames have one");
        }
    });
    kept
}

fn mail(answer: u32, tickets: Vec<Ticket>) -> Mail<u32> {
    Mail { answer, tickets }
}

#[test]
fn one_connection_has_a_few_at_most_and_waits_alone_with_its_clocks_still() {
    let mut world = World::new(1, 1, 1, Weather::fair());
    let kept = keeping(&mut world, Lane::Stratum);
    let (raw, greedy) = world.connect(1, 0, STRATUM);
    let at = world.now() + secs(5);
    world.hubs[0].outlet().set_timer(greedy, Some(at));
    world.write_all(1, raw, &lines(usize::from(TICKETS_PER_MINER) + 5, 20));
    world.run_for(secs(30));
    let read = world.count(0, "bytes_in");
    assert_eq!(world.nodes[0].lines(greedy).len(), usize::from(TICKETS_PER_MINER));
    assert_eq!(world.nodes[0].timers, [], "what would put the timer off lies unread");
    assert_eq!(world.hubs[0].outlet().tickets_out(), usize::from(TICKETS_PER_MINER));
    assert!(world.count(0, "turns") < 60, "it does not spin");
    assert_eq!(world.write(1, raw, &lines(1, 20)), 20);
    world.run_for(secs(1));
    assert_eq!(world.count(0, "bytes_in"), read, "what is cut by nobody is read by nobody");
    let (other, modest) = world.connect(1, 0, STRATUM);
    world.write_all(1, other, b"x\n");
    world.run_until(|world| world.nodes[0].lines(modest).len() == 1);

    // They come home with mail; the rest of its lines follow, and its timer has its full time.
    let mut round = 0;
    world.run_until(|world| {
        let tickets: Vec<Ticket> = kept.borrow_mut().drain(..).collect();
        if !tickets.is_empty() {
            round += 1;
            world.mail[0].push_back(mail(round, tickets));
        }
        world.nodes[0].lines(greedy).len() == usize::from(TICKETS_PER_MINER) + 6 && world.hubs[0].outlet().tickets_out() == 0
    });
    assert_eq!(world.nodes[0].answers, (1..=round).collect::<Vec<_>>());
    let since = world.now();
    world.run_until(|world| !world.nodes[0].timers.is_empty());
    assert!(world.now() - since > secs(4), "30 s of pause do not count");
}

#[test]
fn an_exhausted_lane_leaves_the_others_alone() {
    let mut world = World::new(2, 1, 1, Weather::fair());
    let kept = keeping(&mut world, Lane::Http);
    let scrapers: Vec<_> = (0..TICKETS_HTTP / usize::from(TICKETS_PER_BROWSER) + 4).map(|_| world.connect(1, 0, HTTP)).collect();
    let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n".repeat(6);
    scrapers.iter().for_each(|&(raw, _)| world.write_all(1, raw, &request));
    world.run_for(secs(1));
    assert_eq!(kept.borrow().len(), TICKETS_HTTP);
    assert!(world.count(0, "tickets_waited") > 0);
    let (raw, miner) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, &lines(50, 20));
    world.run_until(|world| world.nodes[0].lines(miner).len() == 50);
    assert_eq!(kept.borrow().len(), TICKETS_HTTP, "and no request more");
    world.run_until(|world| {
        let tickets: Vec<Ticket> = kept.borrow_mut().drain(..).collect();
        tickets.into_iter().for_each(|ticket| world.hubs[0].outlet().home(ticket));
        world.nodes[0].frames.len() == 50 + 6 * scrapers.len()
    });
}

#[test]
fn a_lane_is_bounded_by_count_and_by_bytes() {
    for (len, most) in [(20, TICKETS_STRATUM), (LINE_BYTES_MAX - 96, TICKET_BYTES_STRATUM.div_ceil(LINE_BYTES_MAX - 97))] {
        let mut world = World::new(3, 1, 1, Weather::fair());
        let kept = keeping(&mut world, Lane::Stratum);
        let conns: Vec<_> = (0..300).map(|_| world.connect(1, 0, STRATUM)).collect();
        conns.iter().for_each(|&(raw, _)| world.write_all(1, raw, &lines(5, len)));
        world.run_for(secs(3));
        assert_eq!(kept.borrow().len(), most);
    }
}

#[test]
fn the_ticket_of_a_connection_that_is_gone_comes_home_to_its_lane() {
    let mut world = World::new(4, 1, 1, Weather::fair());
    let kept = keeping(&mut world, Lane::Stratum);
    let (raw, first) = world.connect(1, 0, STRATUM);
    world.write_all(1, raw, &lines(4, 20));
    world.run_until(|_| kept.borrow().len() == 4);
    world.hubs[0].outlet().close(first, rockpool_net::close::CloseReason::Done("test"));
    world.run_until(|world| !world.nodes[0].closed.is_empty());

    // The slot's next tenant has nothing to do with it: not its tickets, not what is sent to the old name.
    let (raw, second) = world.connect(1, 0, STRATUM);
    assert_eq!(second, ConnId { slot: first.slot, generation: first.generation + 1 });
    world.write_all(1, raw, &lines(2, 20));
    world.run_until(|_| kept.borrow().len() == 6);
    let old: Vec<Ticket> = kept.borrow_mut().drain(..4).collect();
    world.mail[0].push_back(mail(7, old));
    world.run_until(|world| world.nodes[0].answers == [7]);
    assert_eq!(world.hubs[0].outlet().tickets_out(), 2);
    let out = world.hubs[0].outlet();
    out.send_bytes(first, b"late".to_vec());
    out.set_timer(first, Some(secs(0)));
    out.pause(first, true);
    out.close(first, rockpool_net::close::CloseReason::Stopping);
    assert!(!out.room(first) && out.room(second) && out.unsent() == 0);
    world.run_for(secs(2));
    assert_eq!((world.read(1, raw), world.nodes[0].closed.len(), world.nodes[0].timers.len()), (vec![], 1, 0));
}

/// So many flooders that they have all tickets of the lane, which come home as emission judges: a slice at a time, the oldest first. Whoever
/// has one line to say stands behind what is in the house, and behind no more of theirs than their turns.
#[test]
fn flooders_with_all_tickets_take_turns_with_a_thousand_others() {
    const FLOODERS: usize = TICKETS_STRATUM / TICKETS_PER_MINER as usize;
    const HONEST: usize = 1_000;
    const SLICE: usize = 64;
    let weather = Weather { capacity: 1 << 20, ..Weather::fair() };
    let mut world = World::with(7, 1, 1, weather, config(FLOODERS + HONEST));
    let kept = keeping(&mut world, Lane::Stratum);
    let flooders: Vec<_> = (0..FLOODERS).map(|_| world.connect(1, 0, STRATUM)).collect();
    let honest: Vec<_> = (0..HONEST).map(|_| world.connect(1, 0, STRATUM)).collect();
    flooders.iter().for_each(|&(raw, _)| assert!(world.write(1, raw, &lines(10_000, 80)) > 400_000));
    world.run_for(secs(1));
    assert_eq!((kept.borrow().len(), world.nodes[0].frames.len()), (TICKETS_STRATUM, TICKETS_STRATUM));
    honest.iter().for_each(|&(raw, _)| assert_eq!(world.write(1, raw, b"{}\n"), 3));
    // All that was written is there; from now on it is the hub's alone.
    let soon = world.now() + std::time::Duration::from_millis(1);
    world.net.advance(soon);
    let from = world.nodes[0].frames.len();
    let flooding: BTreeSet<ConnId> = flooders.iter().map(|&(_, conn)| conn).collect();
    while world.nodes[0].frames[from..].iter().filter(|(conn, _)| !flooding.contains(conn)).count() < HONEST {
        let slice = SLICE.min(kept.borrow().len());
        let tickets: Vec<Ticket> = kept.borrow_mut().drain(..slice).collect();
        world.mail[0].push_back(mail(0, tickets));
        world.turn(0);
    }
    let flood = world.nodes[0].frames[from..].iter().filter(|(conn, _)| flooding.contains(conn)).count();
    assert!(flood <= 2 * FLOODERS * FRAMES_A_ROUND, "{flood} of the flooders' lines came before the last of the others'");
}
