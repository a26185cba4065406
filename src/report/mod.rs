//! The HTML report and the terminal table: pure functions of a run record.

mod confusion;
mod format;
mod plot;
#[cfg(test)]
mod sample;
mod table;
mod words;

use std::collections::BTreeMap;

use askama::Template;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::names;
use crate::record::{ChangedAnswer, Evaluation, RunRecord};
use format::{ABSENT, bytes, count, fold, interval, maybe_percent, milliseconds, percent};
use plot::{Bar, BlockPlot, ClassPlot, LayerPlot};
pub use table::table;
use words::ClassChange;

/// Most pictures in each gallery.
const PICTURES: usize = 24;

/// A small picture of a val image whose answer changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Path as in [`ChangedAnswer::path`].
    pub path: String,
    /// The picture as JPEG.
    pub jpeg: Vec<u8>,
}

/// One offline page with everything a run measured.
///
/// Changed answers show their thumbnail where one is given; pictures without a changed answer are left out.
pub fn render(record: &RunRecord, thumbnails: &[Thumbnail]) -> String {
    let page = Page::new(record, thumbnails).render().expect("writing to memory does not fail");
    names::lines(&page).into_owned()
}

#[derive(Template)]
#[template(path = "report.html", escape = "html")]
struct Page<'a> {
    record: &'a RunRecord,
    verdict: String,
    evidence: String,
    worst: String,
    caveats: Vec<String>,
    cards: [Card; 4],
    headline: [Headline; 3],
    changes: Vec<ClassChange<'a>>,
    classes: ClassPlot,
    layers: [Layers; 2],
    blocks: [Blocks; 2],
    grown: Vec<confusion::Confusion>,
    shrunk: Vec<confusion::Confusion>,
    matrix: Vec<confusion::Row>,
    costs: [Bars; 3],
    stages: Vec<Bar>,
    galleries: [Gallery<'a>; 2],
    wrong_both_times: usize,
    facts: Vec<(&'static str, String)>,
}

struct Card {
    name: &'static str,
    value: String,
    note: String,
}

struct Headline {
    name: &'static str,
    top1: String,
    interval: String,
    cells: [String; 5],
}

struct Layers {
    title: &'static str,
    kind: &'static str,
    plot: LayerPlot,
}

struct Blocks {
    title: &'static str,
    plot: BlockPlot,
}

struct Bars {
    title: &'static str,
    bars: Vec<Bar>,
}

struct Gallery<'a> {
    title: &'static str,
    kind: &'static str,
    total: usize,
    pictures: Vec<Picture<'a>>,
}

struct Picture<'a> {
    change: &'a ChangedAnswer,
    /// The JPEG in base 64; empty where there is no thumbnail.
    jpeg: String,
}

impl<'a> Page<'a> {
    fn new(record: &'a RunRecord, thumbnails: &[Thumbnail]) -> Self {
        let changes = words::class_changes(record);
        let [grown, shrunk] = confusion::changes(record);
        let [latency, size, macs] = plot::cost_bars(record);
        let galleries = galleries(record, thumbnails);
        let sided = galleries.iter().map(|gallery| gallery.total).sum();
        Self {
            record,
            verdict: words::verdict(record),
            evidence: words::evidence(record),
            worst: words::worst_hit(&changes),
            caveats: words::caveats(record),
            cards: cards(record),
            headline: headline(record),
            classes: ClassPlot::new(&changes),
            changes,
            layers: [
                Layers {
                    title: "Weights that stay, in the order of the network",
                    kind: "density",
                    plot: LayerPlot::density(&record.layers),
                },
                Layers {
                    title: "Relative reconstruction error on the calibration images",
                    kind: "error",
                    plot: LayerPlot::error(&record.layers),
                },
            ],
            blocks: [
                Blocks {
                    title: "How far what a block hands on is off: share of its energy",
                    plot: BlockPlot::error(&record.blocks),
                },
                Blocks {
                    title: "How far the answers are off if the network is pruned up to a block only: divergence in nats",
                    plot: BlockPlot::divergence(&record.blocks),
                },
            ],
            grown,
            shrunk,
            matrix: confusion::matrix(record),
            costs: [
                Bars { title: "Time per image", bars: latency },
                Bars { title: "File size", bars: size },
                Bars { title: "Multiply–accumulates per image", bars: macs },
            ],
            stages: plot::stage_bars(record),
            wrong_both_times: record.changed.len().saturating_sub(sided),
            galleries,
            facts: facts(record),
        }
    }
}

fn cards(record: &RunRecord) -> [Card; 4] {
    let (nonzeros, size, time) = (&record.nonzeros, &record.bytes, &record.latency_ms);
    [
        Card {
            name: "top-1 accuracy",
            value: maybe_percent(record.specialist.top1),
            note: format!("dense {}", maybe_percent(record.dense.top1)),
        },
        Card {
            name: "fewer weights",
            value: fold(nonzeros.dense as f64, nonzeros.sparse as f64),
            note: format!("{} → {}", count(nonzeros.dense), count(nonzeros.sparse)),
        },
        Card {
            name: "smaller file",
            value: fold(size.dense as f64, size.sparse as f64),
            note: format!("{} → {}", bytes(size.dense), bytes(size.sparse)),
        },
        Card {
            name: "faster",
            value: fold(time.dense, time.sparse),
            note: format!("{} → {}", milliseconds(time.dense), milliseconds(time.sparse)),
        },
    ]
}

fn headline(record: &RunRecord) -> [Headline; 3] {
    let row = |name, eval: &Evaluation, cells| Headline {
        name,
        top1: maybe_percent(eval.top1),
        interval: if eval.total > 0 { interval(eval.top1_interval) } else { ABSENT.to_owned() },
        cells,
    };
    let (nonzeros, size, macs) = (&record.nonzeros, &record.bytes, &record.macs);
    let time = &record.latency_ms;
    let absent = || ABSENT.to_owned();
    let [kept, all] = [nonzeros.prunable.sparse, nonzeros.all.sparse].map(count);
    let dense = [
        count(nonzeros.prunable.dense),
        count(nonzeros.all.dense),
        bytes(size.dense),
        milliseconds(time.dense),
        count(macs.dense),
    ];
    let oneshot = [kept.clone(), all.clone(), absent(), absent(), absent()];
    let sparse = [kept, all, bytes(size.sparse), milliseconds(time.sparse), count(macs.sparse)];
    [
        row("dense", &record.dense, dense),
        row("one-shot", &record.oneshot, oneshot),
        row("specialist", &record.specialist, sparse),
    ]
}

fn galleries<'a>(record: &'a RunRecord, thumbnails: &[Thumbnail]) -> [Gallery<'a>; 2] {
    let jpegs: BTreeMap<&str, &[u8]> =
        thumbnails.iter().map(|t| (t.path.as_str(), t.jpeg.as_slice())).collect();
    let gallery = |title, kind, pick: &dyn Fn(&ChangedAnswer) -> bool| {
        let changed: Vec<&ChangedAnswer> = record.changed.iter().filter(|change| pick(change)).collect();
        let picture = |change: &&'a ChangedAnswer| Picture {
            change,
            jpeg: jpegs.get(change.path.as_str()).map_or_else(String::new, |jpeg| STANDARD.encode(jpeg)),
        };
        Gallery {
            title,
            kind,
            total: changed.len(),
            pictures: changed.iter().take(PICTURES).map(picture).collect(),
        }
    };
    [
        gallery("Right before, wrong now", "bad", &|c| c.dense.label == c.label),
        gallery("Wrong before, right now", "good", &|c| c.specialist.label == c.label),
    ]
}

fn facts(record: &RunRecord) -> Vec<(&'static str, String)> {
    let (model, machine, parity, time) = (&record.model, &record.machine, &record.parity, &record.latency_ms);
    let finetuned = record.seconds.iter().any(|(stage, _)| stage == "finetune");
    let trained = match record.adapter {
        Some(t) => {
            format!("{} parameters of an adapter ({}), {} beside it", t.adapter, percent(t.share), t.beside)
        }
        None if finetuned => "every surviving weight".to_owned(),
        None => "nothing".to_owned(),
    };
    let memory = record.peak_rss_bytes.map_or_else(|| ABSENT.to_owned(), bytes);
    vec![
        ("architecture", model.architecture.clone()),
        ("checkpoint", model.checkpoint.clone()),
        ("SHA-256", model.sha256.clone()),
        ("head", model.head.clone()),
        ("input", format!("{} × {} pixels", model.input[0], model.input[1])),
        ("data", record.data.path.clone()),
        (
            "images",
            format!(
                "{} to calibrate, {} held out for choices, {} val",
                record.data.calibration, record.data.holdout, record.data.val
            ),
        ),
        ("split", split(record)),
        ("left out", left_out(record)),
        ("recovery trains", trained),
        (
            "runtime against torch",
            format!(
                "largest |Δlogit| {:.1e} of {:.3}, same answer on {} of {} images{}",
                parity.max_abs_logit_difference,
                parity.max_abs_logit,
                percent(parity.argmax_agreement),
                parity.images,
                parity
                    .bf16_agreement
                    .map(|same| format!("; in bf16, the default, as in f32 on {}", percent(same)))
                    .unwrap_or_default()
            ),
        ),
        (
            "latency",
            format!("median of {} runs, batch {}, threads {}", time.runs, time.batch.max(1), time.threads),
        ),
        ("processor", format!("{} ({}), threads {}", machine.cpu, machine.isa, machine.threads)),
        ("device of training", machine.device.clone()),
        ("peak memory", memory),
        ("margay", record.version.clone()),
    ]
}

fn split(record: &RunRecord) -> String {
    match &record.data.split {
        Some(split) if split.optimistic => "optimistic: val was drawn photo by photo".to_owned(),
        Some(_) => "train and val were given as folders".to_owned(),
        None => ABSENT.to_owned(),
    }
}

fn left_out(record: &RunRecord) -> String {
    let kinds = record.data.left_out.iter().map(|kind| format!("{} ({})", kind.count, kind.kind));
    let all = kinds.collect::<Vec<_>>().join(", ");
    if all.is_empty() { "nothing".to_owned() } else { all }
}

#[cfg(test)]
mod tests {
    use super::sample::sample;
    use super::*;

    fn thumbnails(record: &RunRecord) -> Vec<Thumbnail> {
        record
            .changed
            .iter()
            .map(|c| Thumbnail { path: c.path.clone(), jpeg: vec![0xff, 0xd8, 0xff] })
            .collect()
    }

    #[test]
    fn a_small_report_reads_as_before() {
        let record = sample();
        let page = render(&record, &thumbnails(&record));
        let body = page.split_once("</style>").unwrap().1;
        insta::assert_snapshot!(body);
    }

    #[test]
    fn a_record_read_back_gives_the_same_page() {
        let record = sample();
        let again = RunRecord::from_json(&record.to_json().unwrap()).unwrap();
        assert_eq!(again, record);
        assert_eq!(render(&again, &[]), render(&record, &[]));
    }

    #[test]
    fn hostile_names_are_escaped_everywhere() {
        const HOSTILE: &str = "\"><script>alert('x')</script>";
        let mut record = sample();
        for eval in [&mut record.dense, &mut record.oneshot, &mut record.specialist] {
            eval.classes.iter_mut().for_each(|class| class.label = HOSTILE.into());
        }
        for change in &mut record.changed {
            change.label = HOSTILE.into();
            change.dense.label = HOSTILE.into();
            change.path = HOSTILE.into();
        }
        record.layers[0].name = HOSTILE.into();
        record.seconds.add(HOSTILE, 1.0);
        record.recipe = HOSTILE.into();
        record.warnings = vec![HOSTILE.into()];
        record.bad_photos[0].path = HOSTILE.into();
        record.bad_photos[0].reason = HOSTILE.into();
        record.choices[0].what = HOSTILE.into();
        record.choices[0].candidates[0].name = HOSTILE.into();
        record.model.checkpoint = HOSTILE.into();
        record.model.provenance.insert(HOSTILE.into(), HOSTILE.into());
        let page = render(&record, &thumbnails(&record));
        assert!(!page.contains("<script"), "unescaped");
        assert!(!page.contains("alert('x')"), "quotes stay");
        assert!(page.matches("alert(").count() > 15);
    }

    #[test]
    fn the_page_asks_nothing_of_the_network() {
        let record = sample();
        let page = render(&record, &thumbnails(&record));
        for needle in ["http:", "https:", "url(", "<link", "<script", "@import"] {
            assert!(!page.contains(needle), "{needle}");
        }
        assert_eq!(page.matches("data:image/jpeg;base64,/9j/").count(), 6);
    }

    #[test]
    fn a_record_without_any_figure_still_gives_a_page() {
        let mut record = sample();
        for eval in [&mut record.dense, &mut record.oneshot, &mut record.specialist] {
            *eval = Evaluation::default();
        }
        record.layers.clear();
        record.changed.clear();
        record.nonzeros = crate::record::Nonzeros::default();
        record.seconds = crate::record::Stages::default();
        record.latency_ms.dense = f64::NAN;
        let page = render(&record, &[]);
        assert!(page.contains("No class has val images"));
        assert!(!page.contains(">inf") && !page.contains("=\"NaN"));
    }
}
