//! Over what real servers answered.

use std::io::Read;

use super::*;

fn fixture(version: &str) -> String {
    let path = format!("{}/fixtures/metrics/vllm-{version}.txt.zst", env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    zstd::Decoder::new(file).unwrap().take(1 << 20).read_to_string(&mut text).unwrap();
    text
}

fn figures(text: &str) -> Figures {
    let after = Reading::of(text).unwrap();
    Figures::between(&Reading::default(), std::slice::from_ref(&after), &after)
}

fn mean(latency: Latency) -> f64 {
    latency.mean
}

/// The expected numbers are read off the texts by hand.
#[test]
fn vllm_0_11_0() {
    let figures = figures(&fixture("0.11.0"));
    assert_eq!((figures.prompt_tokens, figures.generation_tokens, figures.preemptions), (89, 50, 0));
    assert_eq!(figures.finished, BTreeMap::from([("length".to_owned(), 15)]));
    assert_eq!(figures.prefix_cache_hit_share, None);
    let ttft = figures.ttft_ms.unwrap();
    assert_eq!((ttft.count, ttft.mean), (15, 34.041_233_539_581_3 / 15.0 * 1000.0));
    // 4 of 15 up to 10 ms, 10 up to 20: the rank 7.5 is 3.5 of 6 into that bucket.
    let (above, up_to) = (10.0, Some(20.0));
    assert_eq!((ttft.p50.above, ttft.p50.up_to), (above, up_to));
    assert!((ttft.p50.interpolated.unwrap() - (10.0 + 10.0 * 3.5 / 6.0)).abs() < 1e-9);
    // 13 up to 10 s, 15 up to 20 s: the rank 14.85.
    assert!((ttft.p99.interpolated.unwrap() - 19_250.0).abs() < 1e-9);
    // All waited less than the first bound.
    let queue = figures.queue_ms.unwrap();
    assert_eq!(figures.queue_ms.map(mean), Some(0.001_218_669_000_309_091_6 / 15.0 * 1000.0));
    assert_eq!(queue.p99, Quantile { above: 0.0, up_to: Some(300.0), interpolated: None });
    assert_eq!(figures.itl_ms.unwrap().count, 35);
    assert_eq!(figures.e2el_ms.map(mean), Some(35.715_391_159_057_62 / 15.0 * 1000.0));
    assert_eq!(figures.prefill_ms.map(mean), Some(17.677_774_140_999_304 / 15.0 * 1000.0));
    assert_eq!(figures.decode_ms.map(mean), Some(1.682_430_255_999_975 / 15.0 * 1000.0));
    assert_eq!(figures.kv_cache_usage, Some(Gauge { mean: 0.0, max: 0.0 }));
}

#[test]
fn vllm_0_32_0() {
    let figures = figures(&fixture("0.32.0"));
    assert_eq!((figures.prompt_tokens, figures.generation_tokens), (89, 50));
    assert_eq!(figures.all_finished(), 15);
    assert_eq!(figures.ttft_ms.map(mean), Some(63.495_287_895_202_64 / 15.0 * 1000.0));
    assert_eq!(figures.itl_ms.map(mean), Some(0.834_726_820_000_696_5 / 35.0 * 1000.0));
    assert_eq!((figures.running.unwrap().max, figures.waiting.unwrap().max), (0.0, 0.0));
}

#[test]
fn only_what_came_since_counts() {
    let text = fixture("0.32.0");
    let before = Reading::of(&text).unwrap();
    let figures = Figures::between(&before, &[], &before);
    assert_eq!(figures, Figures::default());
    // One more request, of two tokens, its first after 3 s.
    let mut after = String::new();
    for line in text.lines() {
        let more = |value: f64| {
            let (head, old) = line.rsplit_once(' ').unwrap();
            format!("{head} {}\n", old.parse::<f64>().unwrap() + value)
        };
        let le = line.split_once("le=\"").map(|(_, rest)| rest.split('"').next().unwrap());
        after += &match line.split(['{', ' ']).next().unwrap() {
            "vllm:generation_tokens_total" => more(2.0),
            "vllm:request_success_total" if line.contains("\"stop\"") => more(1.0),
            "vllm:time_to_first_token_seconds_count" => more(1.0),
            "vllm:time_to_first_token_seconds_sum" => more(3.0),
            "vllm:time_to_first_token_seconds_bucket" => {
                more(f64::from(le.unwrap().parse::<f64>().unwrap() >= 3.0))
            }
            _ => format!("{line}\n"),
        };
    }
    let after = Reading::of(&after).unwrap();
    let figures = Figures::between(&before, &[], &after);
    assert_eq!((figures.generation_tokens, figures.prompt_tokens), (2, 0));
    assert_eq!(figures.finished, BTreeMap::from([("stop".to_owned(), 1)]));
    let ttft = figures.ttft_ms.unwrap();
    assert_eq!(ttft.count, 1);
    assert!((ttft.mean - 3000.0).abs() < 1e-6, "{}", ttft.mean);
    assert_eq!((ttft.p50.above, ttft.p50.up_to), (2500.0, Some(5000.0)));
    assert_eq!(figures.itl_ms, None);
    // Backwards: a restart. What there is then came since.
    let restarted = Figures::between(&after, &[], &before);
    assert!(restarted.restarted && !figures.restarted);
    assert_eq!((restarted.prompt_tokens, restarted.all_finished()), (89, 15));
}

#[test]
fn engines_are_added_up_and_gauges_are_of_the_samples() {
    let reading = |text: &str| Reading::of(text).unwrap();
    let one = reading(
        "vllm:num_requests_running{engine=\"0\"} 3.0\nvllm:num_requests_running{engine=\"1\"} 4.0\n\
         vllm:num_requests_waiting 1\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.5\n\
         vllm:kv_cache_usage_perc{engine=\"1\"} 0.25\nvllm:prompt_tokens_total{engine=\"0\"} 8\n\
         vllm:prompt_tokens_total{engine=\"1\"} 8\nvllm:prefix_cache_queries_total 16\nvllm:prefix_cache_hits_total 4",
    );
    let two = reading("vllm:num_requests_running{engine=\"0\"} 1\nvllm:gpu_cache_usage_perc NaN");
    let figures = Figures::between(&Reading::default(), &[one.clone(), two], &one);
    assert_eq!(figures.running, Some(Gauge { mean: 4.0, max: 7.0 }));
    assert_eq!(figures.waiting, Some(Gauge { mean: 1.0, max: 1.0 }));
    assert_eq!(figures.kv_cache_usage, Some(Gauge { mean: 0.5, max: 0.5 }));
    assert_eq!((figures.prompt_tokens, figures.prefix_cache_hit_share), (16, Some(0.25)));
    for foreign in ["", "<html>", "python_info 1\nhttp_requests_total{handler=\"/metrics\"} 3", "{\"a\": 1}"]
    {
        assert_eq!(Reading::of(foreign), None, "{foreign}");
    }
}

#[test]
fn a_version_and_a_model() {
    assert_eq!(version(br#"{"version":"0.32.0"}"#).as_deref(), Some("0.32.0"));
    let models = br#"{"object":"list","data":[{"id":"a\u001b[1m b","max_model_len":4096},{"id":"lora"}]}"#;
    assert_eq!(model(models), Some(Model { id: "a[1m b".to_owned(), max_model_len: Some(4096) }));
    for wrong in ["", "no", "{}", "[]", r#"{"data":[]}"#, r#"{"data":[{"id":3}],"version":3}"#] {
        assert_eq!((version(wrong.as_bytes()), model(wrong.as_bytes())), (None, None), "{wrong}");
    }
}
