//! Faults of a body's shape, as pydantic finds them and as the servers list them.

use serde_json::Value;

use super::python::{quoted, repr};

/// How many faults a later server lists.
pub(crate) const MAX_FAULTS: usize = 10;

/// One fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Fault<'a> {
    /// pydantic's name for it.
    pub(crate) kind: &'static str,
    /// Where, below `body`.
    pub(crate) place: Vec<Place>,
    pub(crate) message: &'static str,
    pub(crate) input: Option<&'a Value>,
    pub(crate) context: Context,
}

/// One step of the way to a fault.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Place {
    Field(&'static str),
    Index(usize),
}

/// What a fault says besides.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Context {
    None,
    /// The JSON reader's reason.
    Json(&'static str),
    /// A `ValueError`'s text.
    Value(&'static str),
}

impl<'a> Fault<'a> {
    pub(crate) fn new(
        kind: &'static str,
        place: Vec<Place>,
        message: &'static str,
        input: Option<&'a Value>,
    ) -> Self {
        Self { kind, place, message, input, context: Context::None }
    }

    /// A field that is missing from `parent`.
    pub(crate) fn missing(place: Vec<Place>, parent: &'a Value) -> Self {
        Self::new("missing", place, "Field required", Some(parent))
    }

    /// Of vLLM 0.11: Python's own text, with the whole input.
    pub(crate) fn verbose(&self) -> String {
        let place: String = self
            .place
            .iter()
            .map(|place| match place {
                Place::Field(name) => format!(", '{name}'"),
                Place::Index(index) => format!(", {index}"),
            })
            .collect();
        let place = if place.is_empty() { "'body',".to_owned() } else { format!("'body'{place}") };
        let input = match self.context {
            Context::Json(_) => "{}".to_owned(),
            _ => self.input.map_or_else(|| "None".to_owned(), repr),
        };
        let context = match self.context {
            Context::None => String::new(),
            Context::Json(reason) => format!(", 'ctx': {{'error': {}}}", quoted(reason)),
            Context::Value(reason) => format!(", 'ctx': {{'error': ValueError({})}}", quoted(reason)),
        };
        format!(
            "{{'type': '{}', 'loc': ({place}), 'msg': {}, 'input': {input}{context}}}",
            self.kind,
            quoted(self.message)
        )
    }

    /// Of later servers: a path with dots, the input summarised.
    pub(crate) fn brief(&self) -> String {
        let input = match (self.context.clone(), self.input) {
            (Context::Json(_), _) => "<dict of 0 items>".to_owned(),
            (_, None | Some(Value::Null)) => "None".to_owned(),
            (_, Some(Value::Object(fields))) => format!("<dict of {} items>", fields.len()),
            (_, Some(Value::Array(items))) => format!("<list of {} items>", items.len()),
            (_, Some(Value::String(text))) => text.clone(),
            (_, Some(other)) => repr(other),
        };
        let context = match self.context {
            Context::None => String::new(),
            Context::Json(reason) | Context::Value(reason) => {
                format!(", 'ctx': {{'error': {}}}", quoted(reason))
            }
        };
        format!(
            "{{'type': '{}', 'loc': '{}', 'msg': {}, 'input': {}{context}}}",
            self.kind,
            self.param(),
            quoted(self.message),
            quoted(&input)
        )
    }

    /// The way to the fault, with dots.
    pub(crate) fn param(&self) -> String {
        let mut param = "body".to_owned();
        for place in &self.place {
            match place {
                Place::Field(name) => param.extend([".", name]),
                Place::Index(index) => param.push_str(&format!(".{index}")),
            }
        }
        param
    }
}
