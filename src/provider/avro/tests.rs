//! Files of another library's making, files of any types made here, and files that lie.

use super::*;
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;
use serde_json::{Value, json};

const LONGEST: usize = 64 * 1024;
const MARK: [u8; SYNC] = *b"0123456789abcdef";

/// Everything that a file gives in pieces that end at `cuts`, and the most that was held at a time.
fn read(file: &[u8], cuts: &[usize]) -> Result<(Vec<Value>, usize), BadAvro> {
    let mut container = Container::new(LONGEST);
    let (mut records, mut most, mut from) = (Vec::new(), 0, 0);
    for end in cuts.iter().copied().chain([file.len()]) {
        let mut piece = &file[from..end];
        from = end;
        loop {
            let given = container.push(piece)?;
            let length: usize = given.iter().map(Bytes::len).sum();
            assert!(length < AT_ONCE + LONGEST, "{length} bytes at once");
            most = most.max(container.held());
            records.extend(given.iter().map(|record| serde_json::from_slice::<Value>(record).unwrap()));
            if !container.is_behind() {
                break;
            }
            piece = &[];
        }
    }
    if container.is_over() { Ok((records, most)) } else { Err("it ends early".into()) }
}

fn lines(file: &[u8]) -> Vec<Value> {
    read(file, &[]).unwrap().0
}

#[test]
fn what_fastavro_wrote_is_read_however_it_is_packed() {
    let plain = lines(include_bytes!("../../../tests/fixtures/avro/chat_null.avro"));
    assert_eq!(plain.len(), 4);
    assert_eq!(plain[0]["body"]["message"]["content"][1]["text"], "Grüße, \"Welt\" 🌳\n");
    assert_eq!(plain[0]["body"]["usage"]["billed_units"], json!({"input_tokens": 3.0, "output_tokens": 7.0}));
    assert_eq!(
        plain[1],
        json!({"custom_id": "row-2", "body": null, "error": "invalid request: model not found"})
    );
    assert_eq!(lines(include_bytes!("../../../tests/fixtures/avro/chat_deflate.avro")), plain);
    assert_eq!(lines(include_bytes!("../../../tests/fixtures/avro/chat_snappy.avro")), plain);
    let embedded = lines(include_bytes!("../../../tests/fixtures/avro/embed_deflate.avro"));
    // As short as the four bytes allow.
    assert_eq!(embedded[2]["body"]["embeddings"]["float"], json!([[-0.097_440_25, 1.5, 0.0]]));
}

#[test]
fn every_type_has_its_json() {
    let read = lines(include_bytes!("../../../tests/fixtures/avro/every_type.avro"));
    let first = json!({
        "n": null, "t": true, "i": -5, "l": i64::MIN, "f": 1.5, "d": 0.1, "b": "\u{0}\u{ff}A", "s": "\u{2028}\"\\",
        "x": "hi", "e": "B", "a": [1, -1, 300], "m": {"k": null, "v": "w"}, "u": "yo", "self": null,
        "at": 1_763_830_000_123_i64,
    });
    assert_eq!(read[0], first);
    assert_eq!((&read[1]["l"], &read[1]["u"], &read[1]["self"]), (&json!(i64::MAX), &json!(7), &first));
}

/// A type of any shape.
#[derive(Clone, Debug)]
enum Kind {
    Null,
    Boolean,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(usize),
    Array(Box<Kind>),
    Map(Box<Kind>),
    Union(Vec<Kind>),
    Record(Vec<Kind>),
}

fn kind() -> impl Strategy<Value = Kind> {
    let leaf = prop_oneof![
        Just(Kind::Null),
        Just(Kind::Boolean),
        Just(Kind::Long),
        Just(Kind::Float),
        Just(Kind::Double),
        Just(Kind::Bytes),
        Just(Kind::Text),
        (0_usize..5).prop_map(Kind::Fixed),
        (1_usize..4).prop_map(Kind::Enum),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|items| Kind::Array(Box::new(items))),
            inner.clone().prop_map(|values| Kind::Map(Box::new(values))),
            prop::collection::vec(inner.clone(), 1..4).prop_map(Kind::Union),
            prop::collection::vec(inner, 0..4).prop_map(Kind::Record),
        ]
    })
}

impl Kind {
    fn schema(&self, names: &mut usize) -> Value {
        let mut name = || {
            *names += 1;
            format!("n{names}")
        };
        match self {
            Self::Null => json!("null"),
            Self::Boolean => json!({"type": "boolean"}),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Bytes => json!("bytes"),
            Self::Text => json!("string"),
            Self::Fixed(size) => json!({"type": "fixed", "name": name(), "size": size}),
            Self::Enum(count) => {
                let symbols: Vec<String> = (0..*count).map(|symbol| format!("S{symbol}")).collect();
                json!({"type": "enum", "name": name(), "symbols": symbols})
            }
            Self::Array(items) => json!({"type": "array", "items": items.schema(names)}),
            Self::Map(values) => json!({"type": {"type": "map", "values": values.schema(names)}}),
            Self::Union(branches) => branches.iter().map(|branch| branch.schema(names)).collect(),
            Self::Record(fields) => {
                let name = name();
                let fields = fields.iter().enumerate();
                let fields: Vec<Value> = fields
                    .map(|(place, kind)| json!({"name": format!("f{place}"), "type": kind.schema(names)}))
                    .collect();
                json!({"type": "record", "name": name, "namespace": "a.b", "fields": fields})
            }
        }
    }

    /// Writes some value, and gives it as JSON.
    fn write(&self, dice: &mut fastrand::Rng, out: &mut Vec<u8>) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::Boolean => {
                let value = dice.bool();
                out.push(u8::from(value));
                value.into()
            }
            Self::Long => {
                let value = dice.i64(..) >> dice.u32(0..64);
                put(out, value);
                value.into()
            }
            Self::Float => {
                let value = f32::from_bits(dice.u32(..));
                out.extend_from_slice(&value.to_le_bytes());
                serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap()
            }
            Self::Double => {
                let value = f64::from_bits(dice.u64(..));
                out.extend_from_slice(&value.to_le_bytes());
                serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap()
            }
            Self::Bytes => {
                let bytes: Vec<u8> = (0..dice.usize(..40)).map(|_| dice.u8(..)).collect();
                put_bytes(out, &bytes);
                latin(&bytes)
            }
            Self::Text => text(dice, out).into(),
            Self::Fixed(size) => {
                let bytes: Vec<u8> = (0..*size).map(|_| dice.u8(..)).collect();
                out.extend_from_slice(&bytes);
                latin(&bytes)
            }
            Self::Enum(count) => {
                let symbol = dice.usize(..*count);
                put(out, i64::try_from(symbol).unwrap());
                format!("S{symbol}").into()
            }
            Self::Array(items) => {
                let mut written = Vec::new();
                blocks(dice, out, |dice, out| written.push(items.write(dice, out)));
                written.into()
            }
            Self::Map(values) => {
                let mut written = serde_json::Map::new();
                blocks(dice, out, |dice, out| {
                    let key = format!("k{}", written.len());
                    put_bytes(out, key.as_bytes());
                    written.insert(key, values.write(dice, out));
                });
                written.into()
            }
            Self::Union(branches) => {
                let branch = dice.usize(..branches.len());
                put(out, i64::try_from(branch).unwrap());
                branches[branch].write(dice, out)
            }
            Self::Record(fields) => {
                let fields = fields.iter().enumerate();
                fields.map(|(place, kind)| (format!("f{place}"), kind.write(dice, out))).collect()
            }
        }
    }
}

fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest >= 0x80 {
        out.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    out.push(u8::try_from(rest).unwrap());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, i64::try_from(bytes.len()).unwrap());
    out.extend_from_slice(bytes);
}

fn latin(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| char::from(*byte)).collect::<String>().into()
}

fn text(dice: &mut fastrand::Rng, out: &mut Vec<u8>) -> String {
    let text: String = (0..dice.usize(..60)).map(|_| dice.char(..)).collect();
    put_bytes(out, text.as_bytes());
    text
}

/// Items in blocks, some of which tell their length.
fn blocks(
    dice: &mut fastrand::Rng,
    out: &mut Vec<u8>,
    mut item: impl FnMut(&mut fastrand::Rng, &mut Vec<u8>),
) {
    for _ in 0..dice.usize(..3) {
        let count = dice.i64(1..4);
        let mut items = Vec::new();
        for _ in 0..count {
            item(dice, &mut items);
        }
        if dice.bool() {
            put(out, count);
        } else {
            put(out, -count);
            put(out, i64::try_from(items.len()).unwrap());
        }
        out.extend_from_slice(&items);
    }
    put(out, 0);
}

fn header(schema: &Value, codec: &str) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    let mut entries = Vec::new();
    for (key, value) in
        [("avro.schema", schema.to_string()), ("avro.codec", codec.to_owned()), ("x", "y".into())]
    {
        put_bytes(&mut entries, key.as_bytes());
        put_bytes(&mut entries, value.as_bytes());
    }
    put(&mut file, -3);
    put(&mut file, i64::try_from(entries.len()).unwrap());
    file.extend_from_slice(&entries);
    put(&mut file, 0);
    file.extend_from_slice(&MARK);
    file
}

fn packed(plain: &[u8], codec: &str) -> Vec<u8> {
    match codec {
        "deflate" => {
            let mut out = Vec::with_capacity(plain.len() + 1024);
            let mut deflater = Compress::new(Compression::fast(), false);
            deflater.compress_vec(plain, &mut out, FlushCompress::Finish).unwrap();
            out
        }
        "snappy" => {
            let mut out = snap::raw::Encoder::new().compress_vec(plain).unwrap();
            let mut crc = Crc::new();
            crc.update(plain);
            out.extend_from_slice(&crc.sum().to_be_bytes());
            out
        }
        _ => plain.to_vec(),
    }
}

fn put_block(file: &mut Vec<u8>, records: i64, plain: &[u8], codec: &str) {
    put(file, records);
    put_bytes(file, &packed(plain, codec));
    file.extend_from_slice(&MARK);
}

/// A file of such records, and what they are.
fn file_of(kind: &Kind, codec: &str, blocks: &[u8], dice: &mut fastrand::Rng) -> (Vec<u8>, Vec<Value>) {
    let root = Kind::Record(vec![Kind::Text, kind.clone()]);
    let mut file = header(&root.schema(&mut 0), codec);
    let mut records = Vec::new();
    for count in blocks {
        let mut plain = Vec::new();
        for _ in 0..*count {
            records.push(root.write(dice, &mut plain));
        }
        put_block(&mut file, i64::from(*count), &plain, codec);
    }
    (file, records)
}

const CODECS: [&str; 3] = ["null", "deflate", "snappy"];

/// A file of one text a record.
fn texts(codec: &str, records: i64, plain: &[u8]) -> Vec<u8> {
    let schema = json!({"type": "record", "name": "r", "fields": [{"name": "s", "type": "string"}]});
    let mut file = header(&schema, codec);
    put_block(&mut file, records, plain, codec);
    file
}

proptest! {
    #[test]
    fn a_file_of_any_types_is_read_wherever_its_bytes_are_cut(
        kind in kind(),
        codec in prop::sample::select(&CODECS),
        blocks in prop::collection::vec(0_u8..6, 0..4),
        seed: u64,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let (file, records) = file_of(&kind, codec, &blocks, &mut fastrand::Rng::with_seed(seed));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(file.len() + 1)).collect();
        cuts.sort_unstable();
        let (given, _) = read(&file, &cuts).unwrap();
        prop_assert_eq!(given, records);
    }

    /// Whatever is cut off or written over, it ends, holds no more than it may, and the records before are the same.
    #[test]
    fn a_file_that_lies_is_refused_within_bounds(
        kind in kind(),
        codec in prop::sample::select(&CODECS),
        blocks in prop::collection::vec(0_u8..6, 1..4),
        seed: u64,
        place: prop::sample::Index,
        over in prop::collection::vec(any::<u8>(), 0..12),
    ) {
        let (mut file, _) = file_of(&kind, codec, &blocks, &mut fastrand::Rng::with_seed(seed));
        let at = place.index(file.len());
        if over.is_empty() {
            file.truncate(at);
            // Between two blocks it is over, for all that one can know.
            if let Ok((_, held)) = read(&file, &[]) {
                prop_assert_eq!(held, 0);
            }
        } else {
            let end = file.len().min(at + over.len());
            file[at..end].copy_from_slice(&over[..end - at]);
            let mut container = Container::new(LONGEST);
            let mut pieces = 0;
            let mut piece: &[u8] = &file;
            while let Ok(given) = container.push(piece) {
                prop_assert!(given.iter().all(|record| serde_json::from_slice::<Value>(record).is_ok()));
                prop_assert!(container.held() <= file.len() + 2 * LONGEST);
                pieces += 1;
                if !container.is_behind() || pieces > 100 {
                    break;
                }
                piece = &[];
            }
        }
    }
}

#[test]
fn a_long_record_is_too_long_however_few_bytes_it_takes() {
    let mut plain = Vec::new();
    put(&mut plain, 1 << 40);
    plain.resize(8 << 20, b'x');
    for codec in CODECS {
        let file = texts(codec, 1, &plain);
        assert!(codec != "deflate" || file.len() < 200_000);
        assert_eq!(read(&file, &[]), Err(BadAvro::TooLong), "{codec}");
        // Nor is more of it held than was needed to know that.
        let mut container = Container::new(LONGEST);
        let told = file.chunks(1024).map(|piece| container.push(piece)).find(Result::is_err);
        assert_eq!(told, Some(Err(BadAvro::TooLong)), "{codec}");
        assert!(container.held() <= 2 * LONGEST, "{codec}: {}", container.held());
    }
}

#[test]
fn many_records_in_few_bytes_come_bit_by_bit() {
    let plain = b"\x02x".repeat(1 << 20);
    let file = texts("deflate", 1 << 20, &plain);
    assert!(file.len() < 10_000, "{}", file.len());
    let (records, held) = read(&file, &[]).unwrap();
    assert_eq!(records.len(), 1 << 20);
    assert!(held < file.len() + 2 * UNPACKED, "{held}");
}

#[test]
fn what_is_wrong_is_told() {
    let bad = |file: &[u8]| match read(file, &[]).unwrap_err() {
        BadAvro::Broken(what) => what,
        BadAvro::TooLong => "too long".to_owned(),
    };
    assert_eq!(bad(b"<html>"), "it is no Avro file");
    assert_eq!(bad(b""), "it ends early");
    let schema = |schema: Value| bad(&header(&schema, "null"));
    assert_eq!(schema(json!("r")), "its schema does not say what `r` is");
    assert_eq!(schema(json!({"type": "array"})), "its schema has `array` without `items`");
    assert_eq!(
        bad(&header(&json!("string"), "zstandard")),
        "it is packed by `zstandard`, which batchd does not unpack"
    );

    // Records of nothing would never end.
    let nothing = json!({"type": "record", "name": "r", "fields": []});
    let mut file = header(&nothing, "null");
    put_block(&mut file, i64::MAX, &[], "null");
    assert_eq!(bad(&file), "its records hold nothing");
    // Nor would lists of nothing.
    let list = json!({"type": "array", "items": "null"});
    let mut file = header(&list, "null");
    let mut plain = Vec::new();
    put(&mut plain, i64::MAX);
    put_block(&mut file, 1, &plain, "null");
    assert_eq!(bad(&file), "too long");
    // What holds itself has to end too.
    let own = json!({"type": "record", "name": "r", "fields": [{"name": "r", "type": "r"}]});
    let mut file = header(&own, "null");
    put_block(&mut file, 1, b"x", "null");
    assert_eq!(bad(&file), "it has values that are nested too deeply");

    for codec in CODECS {
        assert_eq!(bad(&texts(codec, 2, b"\x02x")), "a block ends in the middle of a record", "{codec}");
        assert_eq!(bad(&texts(codec, 1, b"\x02x\x02y")), "a block holds more than its records", "{codec}");
        let mut file = texts(codec, 1, b"\x02x");
        let mark = file.len() - 1;
        file[mark] ^= 1;
        assert_eq!(bad(&file), "a block does not end where it says", "{codec}");
        file.truncate(mark);
        assert_eq!(bad(&file), "it ends early", "{codec}");
    }
    // Five bytes behind what is packed are no remains of a sum.
    let mut file = texts("deflate", 0, &[]);
    put(&mut file, 1);
    put_bytes(&mut file, &[packed(b"\x02x", "deflate"), vec![0; 5]].concat());
    assert_eq!(bad(&file), "a block is longer than what is packed in it");
    let mut file = texts("snappy", 1, b"\x02x");
    let sum = file.len() - SYNC - 1;
    file[sum] ^= 1;
    assert_eq!(bad(&file), "a block is not what it was when it was written");
}
