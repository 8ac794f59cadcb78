use super::*;

const ROLE: &str =
    "data: {\"id\":\"chatcmpl-1\",\"choices\":[{\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n";
const TOKEN: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"x\"}}]}\n\n";
const LAST: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"y\"},\"finish_reason\":\"length\"}]}\n\n";
const USAGE: &str = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":2}}\n\n";
const DONE: &str = "data: [DONE]\n\n";

/// An exchange whose body came in the given pieces, piece i with the read at 1000 + 10 i.
fn exchange(pieces: &[&str], ending: Ending) -> Exchange {
    let request = Prepared {
        index: 7,
        offset_ns: 0,
        method: http::Method::POST,
        path: http::Uri::from_static("/v1/chat/completions"),
        body: bytes::Bytes::new(),
        headers: None,
        input_tokens: Some(3),
        output_tokens: Some(2),
        session: None,
    };
    let mut exchange = Exchange::new(&request, 0, 900, 910);
    exchange.head =
        Some(Head { status: 200, is_stream: true, encoding: None, retry_after: None, read: 0, written: 920 });
    for (read, piece) in (0..).zip(pieces) {
        exchange.stamps.reads_at.push(1000 + 10 * u64::from(read));
        exchange.stamps.reads_late.push(0);
        exchange.stamps.reads_bytes.push(u32::try_from(piece.len()).unwrap());
        exchange.receive(piece.as_bytes(), read);
    }
    exchange.ending = ending;
    exchange.ended = 2000;
    exchange
}

#[test]
fn a_complete_stream() {
    let timeline = exchange(&[ROLE, TOKEN, LAST, USAGE, DONE], Ending::Complete).timeline(900);
    assert_eq!(timeline.outcome, Outcome::Success);
    assert_eq!(timeline.events.read, [0, 1, 2, 3, 4]);
    assert_eq!(timeline.event_ns(2), 120);
    assert_eq!((timeline.dispatched_ns, timeline.written_ns, timeline.head_ns), (10, Some(20), Some(100)));
    assert_eq!(timeline.usage.unwrap().completion_tokens, 2);
    assert_eq!(timeline.response_id.as_deref(), Some("chatcmpl-1"));
    assert_eq!(timeline.finish_reason.as_deref(), Some("length"));
    assert_eq!(timeline.text, None);
}

#[test]
fn the_text_is_kept_where_it_is_asked_for() {
    let mut exchange = exchange(&[ROLE, TOKEN, LAST, USAGE, DONE], Ending::Complete);
    exchange.keeps_text = true;
    assert_eq!(exchange.timeline(900).text.as_deref(), Some("xy"));
}

#[test]
fn what_was_handed_on_is_read_as_if_it_had_not_been() {
    let count = 3 * PART_BYTES / TOKEN.len();
    let pieces = [&[ROLE][..], &vec![TOKEN; count], &[LAST, USAGE, DONE]].concat();
    let whole = exchange(&pieces, Ending::Complete).timeline(900);
    let (collector, news) = std::sync::mpsc::channel();
    let mut parts = exchange(&[], Ending::Complete);
    parts.collector = Some(collector);
    for (read, piece) in (0..).zip(&pieces) {
        parts.receive(piece.as_bytes(), read);
        assert!(parts.body.bytes.len() <= PART_BYTES);
    }
    parts.stamps = exchange(&pieces, Ending::Complete).stamps;
    let mut reading = Reading::default();
    let mut handed_on = 0;
    for news in news.try_iter() {
        let News::Part { slot: 0, part, .. } = news else { panic!("a part of slot 0") };
        reading.read(part);
        handed_on += 1;
    }
    assert_eq!(handed_on, 3);
    assert_eq!(parts.timeline_after(reading, 900), whole);
    assert_eq!(whole.events.len(), count + 4);
}

#[test]
fn what_is_no_stream_is_held_as_a_whole() {
    let (collector, news) = std::sync::mpsc::channel();
    let mut refused = exchange(&[], Ending::Complete);
    refused.collector = Some(collector);
    refused.head =
        Some(Head { status: 500, is_stream: true, encoding: None, retry_after: None, read: 0, written: 920 });
    for _ in 0..100 {
        refused.receive(&[b'x'; 1000], 0);
    }
    assert!(news.try_recv().is_err());
    assert_eq!(refused.timeline(900).outcome, Outcome::Status { body: "x".repeat(SHOWN) });
}

#[test]
fn an_event_belongs_to_the_read_that_completed_its_data() {
    let all = [ROLE, TOKEN, LAST, DONE].concat();
    for cut in 1..all.len() {
        let (before, after) = all.split_at(cut);
        let timeline = exchange(&[before, after], Ending::Complete).timeline(900);
        let mut end = 0;
        for (i, event) in [ROLE, TOKEN, LAST, DONE].iter().enumerate() {
            let data_end = end + event.len() - 2;
            assert_eq!(timeline.events.read[i], u32::from(data_end > cut), "cut at {cut}, event {i}");
            end += event.len();
        }
        assert_eq!(timeline.text.as_deref(), Some("xy"));
    }
}

#[test]
fn each_failure_has_its_kind() {
    let kind = |exchange: Exchange| exchange.timeline(900).outcome.kind();
    let broken = || Ending::Broken("the server closed the connection".to_owned());
    assert_eq!(kind(exchange(&[ROLE, TOKEN], broken())), "truncated");
    assert_eq!(kind(exchange(&[ROLE, TOKEN], Ending::Complete)), "truncated");
    assert_eq!(kind(exchange(&[ROLE, &TOKEN[..20]], broken())), "truncated");
    assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n"], broken())), "protocol");
    assert_eq!(kind(exchange(&[ROLE, &TOKEN[..20]], Ending::Complete)), "protocol");
    assert_eq!(kind(exchange(&[ROLE, LAST], Ending::Complete)), "success");
    assert_eq!(kind(exchange(&[ROLE, DONE], Ending::Complete)), "no_tokens");
    assert_eq!(
        kind(exchange(
            &[ROLE, TOKEN, "data: {\"error\":{\"message\":\"boom\"}}\n\n", DONE],
            Ending::Complete
        )),
        "in_band"
    );
    assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n", DONE], Ending::Complete)), "protocol");
    assert_eq!(kind(exchange(&[ROLE], Ending::Timeout { limit_ms: 5 })), "timeout");
    assert_eq!(kind(exchange(&[ROLE], Ending::Cancelled)), "cancelled");
    let on_purpose = || Ending::CancelledOnPurpose;
    assert_eq!(kind(exchange(&[ROLE, TOKEN], on_purpose())), "cancelled_on_purpose");
    // What went wrong before that is a failure all the same.
    assert_eq!(kind(exchange(&[ROLE, "data: {oops}\n\n"], on_purpose())), "protocol");
    assert_eq!(kind(exchange(&[TOKEN], Ending::TooLarge { limit: 1 })), "protocol");
    let mut refused = exchange(&["{\"error\":\"Unauthorized\"}"], Ending::Complete);
    refused.head = Some(Head {
        status: 401,
        is_stream: false,
        encoding: None,
        retry_after: None,
        read: 0,
        written: 920,
    });
    let timeline = refused.timeline(900);
    assert_eq!(timeline.outcome, Outcome::Status { body: "{\"error\":\"Unauthorized\"}".to_owned() });
    assert!(timeline.events.is_empty());
    let mut json = exchange(&["{}"], Ending::Complete);
    json.head = Some(Head {
        status: 200,
        is_stream: false,
        encoding: None,
        retry_after: None,
        read: 0,
        written: 920,
    });
    assert_eq!(kind(json), "protocol");
    let mut compressed = exchange(&[ROLE, TOKEN, DONE], Ending::Complete);
    compressed.head = Some(Head {
        status: 200,
        is_stream: true,
        encoding: Some("gzip".to_owned()),
        retry_after: None,
        read: 0,
        written: 920,
    });
    let timeline = compressed.timeline(900);
    assert!(timeline.events.is_empty());
    assert!(timeline.outcome.detail().unwrap().contains("compressed (gzip)"), "{:?}", timeline.outcome);
}

/// A capture's events, each in a read of its own.
fn captured(body: &str) -> Timeline {
    let pieces: Vec<&str> = body.split_inclusive("\n\n").collect();
    exchange(&pieces, Ending::Complete).timeline(900)
}

#[test]
fn vllms_choices_are_told_apart() {
    let timeline = captured(include_str!("../../../fixtures/wire/chat_stream_n2.sse"));
    assert_eq!(timeline.outcome, Outcome::Success);
    let outputs = |choice| {
        let is_output = |i: &usize| timeline.events.facts[*i].is_output();
        (0..timeline.events.len()).filter(is_output).filter(|i| timeline.events.choice(*i) == choice).count()
    };
    assert_eq!((outputs(0), outputs(1), outputs(2)), (3, 3, 0));
    let prompts = captured(include_str!("../../../fixtures/wire/comp_stream_2prompts.sse"));
    assert_eq!(prompts.events.choices, [0, 0, 1, 1, 0, 0]);
    assert_eq!(prompts.usage.unwrap().completion_tokens, 4);
    let older = captured(include_str!("../../../fixtures/wire/chat_stream_n2_logprobs.sse"));
    assert_eq!(older.events.choices, [0, 1, 0, 0, 1, 1, 0]);
    // One choice: no column.
    let tool = captured(include_str!("../../../fixtures/wire/tool_named_s.sse"));
    assert!(tool.events.choices.is_empty());
    assert!(tool.first_event_ns(|facts| facts.has(Facts::TOOL_CALL)).is_some());
    assert_eq!(tool.outcome, Outcome::Success);
}

#[test]
fn a_document_is_read_as_a_whole() {
    let document = |body: &str, asked: &'static [u8]| {
        let mut exchange = exchange(&[body], Ending::Complete);
        exchange.asked = Bytes::from_static(asked);
        exchange.head = Some(Head {
            status: 200,
            is_stream: false,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        exchange
    };
    let body = include_str!("../../../fixtures/wire/chat_nonstream_n2.json");
    let timeline = document(body, b"{\"stream\":false}").timeline(900);
    assert_eq!((&timeline.outcome, timeline.events.is_empty()), (&Outcome::Success, true));
    assert_eq!(timeline.usage.unwrap().completion_tokens, 4);
    // There is usage, so nobody needs the text.
    assert_eq!((timeline.text, timeline.end_ns), (None, 1100));
    let kind = |body, asked| document(body, asked).timeline(900).outcome.kind();
    assert_eq!(kind(body, b"{\"stream\":true}"), "protocol");
    assert_eq!(kind("{\"choices\":[]}", b"{}"), "no_tokens");
    assert_eq!(kind("{\"error\":{}}", b"{}"), "in_band");
    let mut cut = document(body, b"{}");
    cut.ending = Ending::Broken("the server closed the connection".to_owned());
    assert_eq!(cut.timeline(900).outcome.kind(), "truncated");
}

#[test]
fn what_a_retry_may_mend_is_known_without_the_body() {
    let of = |status: Option<u16>, ending| {
        let mut exchange = exchange(&[ROLE, TOKEN], ending);
        exchange.head = status.map(|status| Head {
            status,
            is_stream: true,
            encoding: None,
            retry_after: None,
            read: 0,
            written: 920,
        });
        exchange.failure()
    };
    let broken = || Ending::Broken(String::new());
    assert_eq!(of(None, Ending::Connect(String::new())), Some(Failure::Connect));
    assert_eq!(of(Some(200), Ending::Timeout { limit_ms: 1 }), Some(Failure::Timeout));
    assert_eq!([of(None, broken()), of(Some(200), broken())], [Some(Failure::Truncated); 2]);
    assert_eq!([of(Some(503), Ending::Complete), of(Some(429), broken())], [Some(Failure::Status); 2]);
    for ending in [Ending::Complete, Ending::Cancelled, Ending::CancelledOnPurpose] {
        assert_eq!(of(Some(200), ending), None);
    }
    assert_eq!([of(Some(404), Ending::Complete), of(Some(400), broken())], [None; 2]);
}

#[test]
fn what_is_read_where_it_is_received_says_the_same() {
    let pieces = [ROLE, TOKEN, TOKEN, LAST, USAGE, DONE];
    let whole = exchange(&pieces, Ending::Complete).timeline(900);
    let mut watched = exchange(&[], Ending::Complete);
    watched.watch = Some(Box::new(Watch::new(2)));
    let mut enough = Vec::new();
    for (read, piece) in (0..).zip(pieces) {
        watched.receive(piece.as_bytes(), read);
        enough.push(watched.is_enough());
    }
    assert_eq!(enough, [false, false, true, true, true, true]);
    assert_eq!(watched.received(), pieces.concat().len());
    watched.stamps = exchange(&pieces, Ending::Complete).stamps;
    assert_eq!(watched.timeline(900), whole);
}

#[test]
fn running_counts_are_kept_where_every_event_has_one() {
    let with = |n: u32| {
        format!(
            "data: {{\"choices\":[{{\"delta\":{{\"content\":\"x\"}}}}],\"usage\":{{\"prompt_tokens\":1,\"completion_tokens\":{n}}}}}\n\n"
        )
    };
    let (one, three) = (with(1), with(3));
    let timeline = exchange(&[&one, &three, DONE], Ending::Complete).timeline(0);
    assert_eq!(timeline.events.tokens, [1, 3, 3]);
    let timeline = exchange(&[ROLE, &one, DONE], Ending::Complete).timeline(0);
    assert!(timeline.events.tokens.is_empty());
}
