//! Several questions in one message: each is answered as if it had come alone.

use http::Method;
use tidegate_policy::wire::together::{
    DECISIONS_PATH, QUESTIONS_BYTES_MAX, QUESTIONS_MAX, add_question, answers,
};
use tidegate_policy::wire::{
    DecideReply, DecideRequest, DecisionId, FRAMED_BYTES_MAX, MESSAGE_BYTES_MAX, Refusal, Verdict,
    encode,
};
use tidegate_tests::redis::Redis;
use tokio::task::JoinSet;

use crate::bench::{Answer, BOTH, CALM, Caller, Speaks, TOKEN, question, request, settings, start};

fn message(questions: &[Vec<u8>]) -> Vec<u8> {
    let mut message = Vec::new();
    for (nth, question) in questions.iter().enumerate() {
        add_question(&mut message, question, nth);
    }
    message
}

async fn ask(caller: &Caller, to: std::net::SocketAddr, questions: &[Vec<u8>]) -> Answer {
    caller.send(request(to, Method::POST, DECISIONS_PATH, Some(TOKEN), message(questions))).await
}

#[tokio::test]
async fn each_question_has_its_own_answer_in_its_place() {
    let gateway = start(settings("--region here")).await;
    for speaks in BOTH {
        let name = format!("{speaks:?}");
        let numbered = |id| DecideRequest { id: DecisionId::new(id), ..question(&name) };
        let mut elsewhere = numbered(3);
        elsewhere.scope.region = tidegate_policy::scope::Region::new("there").ok();
        let mut large = numbered(5);
        large.limits[0].cost = 4;
        let asked = [
            encode(&numbered(1)),
            b"no question".to_vec(),
            encode(&elsewhere),
            encode(&numbered(4)),
            encode(&large),
            Vec::new(),
        ];
        let answer = ask(&Caller::new(speaks), gateway.data_addr, &asked).await;
        assert_eq!(answer.status, 200, "{speaks:?}");
        assert!(answer.marked(), "{speaks:?}");
        let parts = answers(&answer.body, asked.len()).expect("as many as were asked");
        let statuses: Vec<&[u8]> = parts.iter().map(|part| part.status).collect();
        assert_eq!(statuses, [&b"200"[..], b"400", b"409", b"200", b"200", b"400"], "{speaks:?}");
        let reason = |nth: usize| Refusal::decode(parts[nth].body).expect("a refusal").reason;
        assert_eq!([1, 2, 5].map(reason), ["bad-message", "region-mismatch", "bad-message"]);
        let verdict = |nth: usize, id| {
            let reply = DecideReply::decode(parts[nth].body, DecisionId::new(id));
            reply.expect("a verdict").verdict
        };
        // Two of five are gone, and the last would cost four.
        let verdicts = [verdict(0, 1), verdict(3, 4), verdict(4, 5)];
        assert_eq!(verdicts, [Verdict::Allow, Verdict::Allow, Verdict::Deny], "{speaks:?}");
    }
    let metrics = Caller::new(Speaks::Http1);
    let metrics =
        metrics.get(gateway.admin_addr, "/metrics", Some(crate::bench::VIEWER)).await.text();
    for line in [
        "tidegate_gateway_refusals_total{reason=\"bad-message\"} 4",
        "tidegate_gateway_refusals_total{reason=\"region-mismatch\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
}

#[tokio::test]
async fn more_than_the_bound_or_none_is_refused_as_a_whole() {
    let gateway = start(settings("")).await;
    let caller = Caller::new(Speaks::Http2);
    let most = vec![encode(&question("a")); QUESTIONS_MAX];
    assert_eq!(ask(&caller, gateway.data_addr, &most).await.status, 200);
    let more = vec![encode(&question("a")); QUESTIONS_MAX + 1];
    let refused = ask(&caller, gateway.data_addr, &more).await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (400, "bad-message"));
    assert!(refused.text().contains("send at most"), "{}", refused.text());
    let unknown = request(gateway.data_addr, Method::POST, DECISIONS_PATH, None, message(&most));
    let refused = caller.send(unknown).await;
    assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (401, "unauthorized"));
}

/// A body of nothing but separators is 65,536 empty questions: no more of them are looked at than it takes to refuse them.
#[tokio::test]
async fn a_message_of_separators_is_refused_as_a_whole() {
    let gateway = start(settings("")).await;
    for speaks in BOTH {
        let body = vec![b'\n'; MESSAGE_BYTES_MAX];
        let asked = request(gateway.data_addr, Method::POST, DECISIONS_PATH, Some(TOKEN), body);
        let refused = Caller::new(speaks).send(asked).await;
        assert_eq!((refused.status.as_u16(), refused.reason().as_str()), (400, "bad-message"));
    }
}

/// A filter reads so much of an answer and no more: what is said to the longest message that it sends stays below, whether it is
/// decided or refused.
#[tokio::test]
async fn the_answers_to_the_longest_message_are_no_more_than_a_filter_reads() {
    let gateway = start(settings("--region here")).await;
    let caller = Caller::new(Speaks::Http2);
    let longest = |mut question: DecideRequest| {
        let limit = question.limits[0].clone();
        loop {
            let mut more = question.clone();
            more.limits.push(limit.clone());
            if encode(&more).len() >= QUESTIONS_BYTES_MAX / QUESTIONS_MAX {
                return encode(&question);
            }
            question = more;
        }
    };
    let mut elsewhere = question("a");
    elsewhere.scope.region = tidegate_policy::scope::Region::new("a-region-elsewhere").ok();
    for question in [longest(question("a")), encode(&question("a")), encode(&elsewhere)] {
        let answer = ask(&caller, gateway.data_addr, &vec![question; QUESTIONS_MAX]).await;
        assert_eq!(answer.status, 200);
        answers(&answer.body, QUESTIONS_MAX).expect("as many as were asked");
        println!("{} octets of {FRAMED_BYTES_MAX}", answer.body.len());
        assert!(answer.body.len() < FRAMED_BYTES_MAX / 2, "{}", answer.body.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn together_or_alone_a_limit_admits_what_it_admits() {
    let redis = Redis::start().await;
    let gateway = start(settings(&format!("--redis-url {} {CALM}", redis.url()))).await;
    let mut asked = question("a");
    (asked.limits[0].limit, asked.limits[0].burst) = (100, 100);
    asked.limits[0].period_us = 86_400_000_000;
    let (to, first) = (gateway.data_addr, crate::bench::decides(&gateway, &asked).await);
    assert_eq!(first.verdict, Verdict::Allow);
    let mut callers = JoinSet::new();
    for nth in 0..12 {
        let asked = vec![encode(&asked); if nth % 3 == 0 { 1 } else { 30 }];
        callers.spawn(async move {
            let answer = ask(&Caller::new(Speaks::Http2), to, &asked).await;
            let parts = answers(&answer.body, asked.len()).expect("as many as were asked");
            let verdicts = parts.iter().map(|part| {
                DecideReply::decode(part.body, DecisionId::new(9)).expect("a verdict").verdict
            });
            verdicts.filter(|verdict| *verdict == Verdict::Allow).count()
        });
    }
    let admitted: usize = callers.join_all().await.into_iter().sum();
    assert_eq!(admitted, 99);
}
