//! The parts of a page put together.

use serde::Serialize;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
/// In the order in which they need one another.
const SCRIPTS: [&str; 5] = [
    include_str!("base.js"),
    include_str!("chart.js"),
    include_str!("timeline.js"),
    include_str!("sections.js"),
    include_str!("page.js"),
];

/// The page that shows these data.
pub(super) fn page(data: &impl Serialize) -> Vec<u8> {
    // Structs of numbers, strings and fixed keys always serialise.
    let data = inert(&serde_json::to_string(data).unwrap_or_default());
    // The data come last: what stands in them is not looked at again.
    let page = PAGE.replace("{{style}}", STYLE).replace("{{script}}", &SCRIPTS.concat());
    page.replace("{{data}}", &data).into_bytes()
}

/// JSON that no HTML parser takes for markup, whatever its strings say. Outside strings JSON has none of these
/// characters, and inside an escape means the same.
fn inert(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for char in json.chars() {
        match char {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => text += &format!("\\u{:04x}", u32::from(char)),
            _ => text.push(char),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTILE: &str = "</script><script>alert(1)</script><!--<script> & {{data}} {{script}} \u{2028}";

    #[test]
    fn strings_stay_strings() {
        let page = String::from_utf8(page(&serde_json::json!({ "model": HOSTILE }))).unwrap();
        assert!(!page.contains("alert(1)</script>") && !page.contains("<script>alert"), "{page}");
        let (_, rest) = page.split_once("<script type=\"application/json\" id=\"data\">").unwrap();
        let (json, _) = rest.split_once("</script>").unwrap();
        let data: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(data["model"], HOSTILE);
    }

    #[test]
    fn a_page_names_no_other_place() {
        let page = String::from_utf8(page(&0)).unwrap();
        for outside in
            ["http:", "https:", "//cdn", " src=", "url(", "@import", "fetch(", "XMLHttpRequest", "import("]
        {
            assert!(!page.contains(outside), "{outside}");
        }
        for unsafe_sink in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("] {
            assert!(!page.contains(unsafe_sink), "{unsafe_sink}");
        }
        assert!(page.contains("default-src 'none'"));
    }
}
