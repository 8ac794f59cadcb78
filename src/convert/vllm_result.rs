//! The result file of `vllm bench serve --save-result`, 0.11.0 to 0.33.0, with or without `--save-detailed`, and of
//! vLLM's own Rust client. Facts: `vllm/benchmarks/serve.py` of those versions.

use super::{Error, Fields, malformed};
use crate::compare::metric::{Figures, Latency, Metric, Statistic};
use crate::compare::{Record, Sample, Subject, Traffic};
use crate::metrics::{Dialect, vllm};
use crate::report::VllmOptions;
use crate::report::vllm as vllm_report;

/// Whether the fields are those of such a file.
pub(super) fn is_result(fields: &Fields<'_>) -> bool {
    ["backend", "duration", "completed", "request_throughput"].iter().all(|key| fields.has(key))
}

/// One result.
pub(super) fn subject(name: &str, fields: &Fields<'_>) -> Result<Subject, Error> {
    let (version, dialect) = version(fields);
    let samples = samples(fields)?;
    let mut notes = Vec::new();
    let record = if samples.is_empty() {
        notes.push(format!("{name} keeps no single requests; --save-detailed would"));
        Record::None
    } else {
        Record::Samples(samples)
    };
    if let Some(backend) = fields.get::<String>("backend")?
        && dialect == Dialect::Vllm(vllm::Version::V0_11_0)
        && backend.ends_with("chat")
    {
        notes.push(format!(
            "{name} counts prompts without the chat template, and its chat latencies end with the usage event"
        ));
    }
    let rate = fields.number("request_rate")?.filter(|rate| rate.is_finite());
    let concurrency = fields.get::<u32>("max_concurrency")?;
    let mut subject = Subject {
        name: name.to_owned(),
        tool: format!("vllm bench serve {version}"),
        dialect,
        own: figures(fields)?,
        record,
        traffic: Traffic { concurrency, request_rate: rate, arrival: None },
        workload_digest: None,
        notes,
        table: table(fields)?,
    };
    // What a version does not print by default (E2EL) can still be computed from what it keeps.
    subject.fill_from_samples(|_| 0.0);
    if let Some(e2el) = mean_e2el(&subject) {
        subject.own.set(MEAN_E2EL, e2el);
    }
    Ok(subject)
}

const MEAN_E2EL: Metric = Metric::Latency(Latency::E2el, Statistic::Mean);

/// Mean E2EL of a file that has none, from its TTFT and TPOT, where every answer has the same number of tokens: TPOT is
/// `(latency - TTFT) / (tokens - 1)`, so the mean latency is then mean TTFT + mean TPOT × (tokens - 1).
fn mean_e2el(subject: &Subject) -> Option<f64> {
    let Record::Samples(samples) = &subject.record else {
        return None;
    };
    let mut tokens = samples.iter().filter(|sample| sample.success).map(|sample| sample.output_tokens);
    let each = tokens.next().filter(|&each| each > 1)?;
    let mean = |latency| subject.own.get(Metric::Latency(latency, Statistic::Mean));
    let absent = subject.own.get(MEAN_E2EL).is_none();
    (absent && tokens.all(|tokens| tokens == each))
        .then(|| Some(mean(Latency::Ttft)? + mean(Latency::Tpot)? * f64::from(each - 1)))
        .flatten()
}

/// The version as far as its fields tell, and the dialect nearest to it.
fn version(fields: &Fields<'_>) -> (&'static str, Dialect) {
    let has_any = |keys: &[&str]| keys.iter().any(|key| fields.has(key));
    let (words, version) = if has_any(&["failed_requests", "steady_state"]) {
        ("(vLLM's Rust client)", vllm::Version::V0_32_0)
    } else if has_any(&["server_queue_times", "server_ttfts"]) {
        ("0.33", vllm::Version::V0_33_0)
    } else if has_any(&["latencies", "queue_times"]) {
        ("0.30 or later", vllm::Version::V0_32_0)
    } else if fields.has("rtfx") {
        // Until 0.29 the usage event moved the end of a chat request, as in 0.11.0.
        ("0.17 to 0.29", vllm::Version::V0_11_0)
    } else if fields.has("failed") {
        ("0.11.1 to 0.16", vllm::Version::V0_11_0)
    } else {
        ("0.11.0", vllm::Version::V0_11_0)
    };
    (words, Dialect::Vllm(version))
}

fn figures(fields: &Fields<'_>) -> Result<Figures, Error> {
    let mut figures = Figures::default();
    let completed = fields.number("completed")?;
    let prompts = fields.number("num_prompts")?;
    let failed = fields.number("failed")?.or(prompts.zip(completed).map(|(all, good)| all - good));
    figures.set(Metric::Failed, failed);
    for (metric, key) in [
        (Metric::Duration, "duration"),
        (Metric::Succeeded, "completed"),
        (Metric::InputTokens, "total_input_tokens"),
        (Metric::OutputTokens, "total_output_tokens"),
        (Metric::RequestThroughput, "request_throughput"),
        (Metric::OutputThroughput, "output_throughput"),
        (Metric::TotalThroughput, "total_token_throughput"),
    ] {
        figures.set(metric, fields.number(key)?);
    }
    for metric in Metric::all().filter(|metric| matches!(metric, Metric::Latency(..))) {
        // The neutral names are this file's own.
        figures.set(metric, fields.number(&metric.key())?);
    }
    // Without a response the statistics are all 0, which says nothing.
    if completed == Some(0.0) {
        for latency in [Latency::Ttft, Latency::Tpot, Latency::Itl, Latency::E2el] {
            for statistic in [Statistic::Mean, Statistic::Median, Statistic::P99, Statistic::Std] {
                figures.set(Metric::Latency(latency, statistic), None);
            }
        }
    }
    Ok(figures)
}

/// The table that was printed when the file was saved; none where the version is not known, or the table had sections
/// of the server's counters.
#[expect(clippy::cast_possible_truncation, reason = "a count of requests")]
fn table(fields: &Fields<'_>) -> Result<Option<String>, Error> {
    let version = match version(fields) {
        ("0.11.0", _) => vllm::Version::V0_11_0,
        ("0.30 or later" | "0.33", Dialect::Vllm(version)) => version,
        _ => return Ok(None),
    };
    let sections = ["spec_decode_", "diffusion_", "probe_", "ramp_up_"];
    if fields.fields.keys().any(|key| sections.iter().any(|section| key.starts_with(section))) {
        return Ok(None);
    }
    let number = |key: &str| Ok::<f64, Error>(fields.number(key)?.unwrap_or(0.0));
    let count = |key: &str| Ok::<u64, Error>(fields.get::<u64>(key)?.unwrap_or(0));
    let mut shown = Vec::new();
    let mut percentiles = Vec::new();
    let mut stats = |metric: vllm_report::Metric| -> Result<vllm::Stats, Error> {
        let key = metric.key();
        let end = format!("_{key}_ms");
        if fields.has(&format!("mean{end}")) {
            shown.push(metric);
        }
        let mut of_metric = Vec::new();
        for name in fields.fields.keys() {
            let p = name.strip_prefix('p').and_then(|name| name.strip_suffix(&end));
            if let Some(p) = p.and_then(|p| p.parse::<f64>().ok()) {
                of_metric.push((p, number(name)?));
            }
        }
        of_metric.sort_by(|a, b| a.0.total_cmp(&b.0));
        percentiles = of_metric.iter().map(|&(p, _)| p).collect();
        Ok(vllm::Stats {
            mean_ms: number(&format!("mean{end}"))?,
            median_ms: number(&format!("median{end}"))?,
            std_ms: number(&format!("std{end}"))?,
            percentiles_ms: of_metric,
        })
    };
    let metrics = vllm::Metrics {
        duration: number("duration")?,
        completed: fields.get("completed")?.unwrap_or(0),
        failed: fields.get("failed")?.unwrap_or(0),
        total_input: count("total_input_tokens")?,
        total_output: count("total_output_tokens")?,
        request_throughput: number("request_throughput")?,
        request_goodput: fields.number("request_goodput")?,
        output_throughput: number("output_throughput")?,
        total_token_throughput: number("total_token_throughput")?,
        max_output_tokens_per_s: number("max_output_tokens_per_s")?,
        max_concurrent_requests: number("max_concurrent_requests")? as i64,
        ttft: stats(vllm_report::Metric::Ttft)?,
        tpot: stats(vllm_report::Metric::Tpot)?,
        itl: stats(vllm_report::Metric::Itl)?,
        e2el: stats(vllm_report::Metric::E2el)?,
        client_queue_time: Some(stats(vllm_report::Metric::ClientQueueTime)?),
        e2el_including_client_queue: Some(stats(vllm_report::Metric::E2elIncludingClientQueue)?),
    };
    let traffic = vllm_report::Traffic {
        completions: false,
        concurrency: fields.get("max_concurrency")?,
        request_rate: fields.number("request_rate")?,
    };
    let options = VllmOptions { metrics: shown, percentiles, ..VllmOptions::default() };
    Ok(Some(vllm_report::console(version, &metrics, traffic, &options)))
}

/// The arrays that `--save-detailed` keeps; empty without them.
fn samples(fields: &Fields<'_>) -> Result<Vec<Sample>, Error> {
    let (Some(ttfts), Some(itls)) = (fields.get::<Vec<f64>>("ttfts")?, fields.get::<Vec<Vec<f64>>>("itls")?)
    else {
        return Ok(Vec::new());
    };
    let n = ttfts.len();
    let same_length = |key: &str, length: usize| {
        let reason = || format!("its {key:?} has {length} entries, its \"ttfts\" {n}");
        if length == n { Ok(()) } else { Err(malformed(fields.path, reason())) }
    };
    let counts = |key: &str| -> Result<Vec<u32>, Error> {
        let values = fields.get::<Vec<u32>>(key)?.unwrap_or_default();
        same_length(key, values.len())?;
        Ok(values)
    };
    let times = |key: &str| -> Result<Option<Vec<f64>>, Error> {
        let values = fields.get::<Vec<f64>>(key)?;
        values.as_ref().map_or(Ok(()), |values| same_length(key, values.len()))?;
        Ok(values)
    };
    same_length("itls", itls.len())?;
    let (input, output) = (counts("input_lens")?, counts("output_lens")?);
    let (latencies, starts) = (times("latencies")?, times("start_times")?);
    let errors = fields.get::<Vec<String>>("errors")?;
    errors.as_ref().map_or(Ok(()), |errors| same_length("errors", errors.len()))?;
    let sample = |(i, itl): (usize, Vec<f64>)| Sample {
        // There is no flag; a failure has an error, and no output.
        success: errors.as_ref().is_none_or(|errors| errors[i].is_empty())
            && (output[i] > 0 || ttfts[i] > 0.0),
        start: starts.as_ref().map(|starts| starts[i]),
        ttft: ttfts[i],
        itl,
        latency: latencies.as_ref().map(|latencies| latencies[i]),
        input_tokens: input[i],
        output_tokens: output[i],
    };
    Ok(itls.into_iter().enumerate().map(sample).collect())
}
