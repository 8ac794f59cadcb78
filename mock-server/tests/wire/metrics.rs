//! `/metrics` against the captures: the families, their words and types, and vLLM's series with their labels and buckets,
//! all in order; and values that are known.

use crate::cases::{Case, Kind};
use crate::http::{self, Server};

fn scrape(server: &Server, kind: Kind) -> Vec<String> {
    let response = http::parse(&server.exchange(&Case::new("metrics", kind, "GET", "/metrics")), true);
    assert!(response.head.contains(&"content-type: text/plain; version=1.0.0; charset=utf-8".to_owned()));
    response.body().lines().map(str::to_owned).collect()
}

/// What has to be equal of one line: all of a description, the series of vLLM's own samples, the names of others. The
/// mock is no Python program, so what tells of Python is left out.
fn comparable(line: &str) -> Option<String> {
    if line.contains("python_") {
        return None;
    }
    if line.starts_with('#') {
        return Some(line.to_owned());
    }
    let (series, value) = line.rsplit_once(' ').unwrap();
    assert!(value.parse::<f64>().is_ok(), "{line}");
    series.starts_with("vllm:").then(|| series.to_owned())
}

#[test]
fn families_and_series_are_vllms() {
    for (kind, capture) in
        [(Kind::Qwen0110, "vllm-0.11.0/get_metrics.http"), (Kind::Qwen0320, "vllm-0.32.0/get_metrics.http")]
    {
        let expected = http::parse(&crate::capture(capture), false).body();
        let expected: Vec<String> = expected.lines().filter_map(comparable).collect();
        let page = scrape(&Server::start(kind, None), kind);
        let answered: Vec<String> = page.iter().filter_map(|line| comparable(line)).collect();
        for (answered, expected) in answered.iter().zip(&expected) {
            assert_eq!(answered, expected, "{capture}");
        }
        assert_eq!(answered.len(), expected.len(), "{capture}");
    }
}

#[test]
fn values_are_what_happened() {
    let kind = Kind::Qwen0320;
    let server = Server::start(kind, None);
    let chat = |fields: &str| {
        let body = format!(r#"{{"messages":[{{"role":"user","content":"hello"}}],{fields}}}"#);
        Case::new("chat", kind, "POST", "/v1/chat/completions").body(body)
    };
    server.exchange(&chat(r#""max_tokens":5,"stream":true"#));
    server.exchange(&chat(r#""max_tokens":3,"n":2"#));
    server.exchange(&chat(r#""max_tokens":0"#));
    server.exchange(&Case::new("none", kind, "GET", "/nope"));
    server.exchange(&Case::new("health", kind, "GET", "/health"));
    let page = scrape(&server, kind);
    let model = r#"engine="0",model_name="Qwen2.5-0.5B-Instruct""#;
    let bucket = |le: &str| {
        format!(
            r#"vllm:request_generation_tokens_bucket{{engine="0",le="{le}",model_name="Qwen2.5-0.5B-Instruct"}}"#
        )
    };
    let chat = r#"handler="/v1/chat/completions",method="POST""#;
    for (series, value) in [
        (format!("vllm:prompt_tokens_total{{{model}}}"), "27.0"),
        (format!("vllm:generation_tokens_total{{{model}}}"), "11.0"),
        (format!("vllm:num_requests_running{{{model}}}"), "0.0"),
        (format!("vllm:iteration_tokens_total_sum{{{model}}}"), "38.0"),
        (format!("vllm:inter_token_latency_seconds_count{{{model}}}"), "8.0"),
        (format!("vllm:time_to_first_token_seconds_count{{{model}}}"), "3.0"),
        (format!("vllm:request_params_n_sum{{{model}}}"), "3.0"),
        (format!("vllm:request_max_num_generation_tokens_sum{{{model}}}"), "8.0"),
        (
            r#"vllm:request_success_total{engine="0",finished_reason="length",model_name="Qwen2.5-0.5B-Instruct"}"#
                .to_owned(),
            "3.0",
        ),
        (bucket("2.0"), "0.0"),
        (bucket("5.0"), "3.0"),
        (format!(r#"http_requests_total{{{chat},status="2xx"}}"#), "2.0"),
        (format!(r#"http_requests_total{{{chat},status="4xx"}}"#), "1.0"),
        (r#"http_requests_total{handler="none",method="GET",status="4xx"}"#.to_owned(), "1.0"),
        ("http_request_duration_highr_seconds_count".to_owned(), "4.0"),
    ] {
        assert!(page.contains(&format!("{series} {value}")), "{series} {value}\n{}", page.join("\n"));
    }
    assert!(!page.iter().any(|line| line.contains("/health")));
}

/// One answer has the engine's only seat, and the other waits for it.
#[test]
fn queues_and_cache_are_the_engines() {
    let kind = Kind::OneSeat;
    let server = Server::start(kind, None);
    let answers = [(); 2].map(|()| {
        let body =
            r#"{"prompt":[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17],"max_tokens":2000,"stream":true}"#;
        server.ask(&Case::new("completions", kind, "POST", "/v1/completions").body(body))
    });
    let told = |name: &str| {
        let page = scrape(&server, kind);
        let series = format!(r#"vllm:{name}{{engine="0",model_name="Qwen2.5-0.5B-Instruct"}} "#);
        page.iter().find_map(|line| line.strip_prefix(&series)).unwrap().to_owned()
    };
    assert!((0..1000).any(|_| told("num_requests_waiting") == "1.0"), "{}", told("num_requests_waiting"));
    assert_eq!(told("num_requests_running"), "1.0");
    assert_eq!(told("prefix_cache_queries_total"), "17.0");
    assert!(told("kv_cache_usage_perc").parse::<f64>().unwrap() > 0.0);
    drop(answers);
    assert!((0..1000).any(|_| told("num_requests_running") == "0.0"), "{}", told("num_requests_running"));
    assert_eq!((told("num_requests_waiting"), told("kv_cache_usage_perc")), ("0.0".into(), "0.0".into()));
}
