//! `tokenize`, `token_count` and `chunk_text`: texts as the tokens that a model reads.
//!
//! ```sql
//! SELECT id, unnest(chunk_text('minilm', body, 256, 32)) FROM docs;   -- parts that each fit into the model
//! SELECT count(*) FROM docs WHERE token_count('minilm', body) > 256;  -- texts that it would cut
//! ```

mod chunks;

use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{
    ArrayRef, AsArray, Int64Array, Int64Builder, ListBuilder, StringBuilder, StringViewArray,
};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::scalar_doc_sections::DOC_SECTION_OTHER;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use self::chunks::Chunker;
use crate::model::{ModelResolver, Resolved, Tokenizer};

/// What is asked about the tokens of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Ask {
    /// `tokenize('model', text)`: their numbers.
    Numbers,
    /// `token_count('model', text)`: how many there are.
    Count,
    /// `chunk_text('model', text[, max_tokens[, overlap]])`, `chunk_text(text, max_words[, overlap])`: parts of the text of at most so many.
    Chunks,
}

/// A function of texts and of the tokens that a model reads them as. The model, which is named by a literal, is loaded: where it is not
/// in memory yet, the thread that evaluates the call waits for it.
///
/// Its name is looked up for each batch, so a planner that wants one version from beginning to end puts that into the literal.
/// Nothing is cut: these are all tokens of a text, as the model is given them if it takes so many.
#[derive(Debug)]
pub struct TokensFunction {
    resolver: Arc<dyn ModelResolver>,
    ask: Ask,
    signature: Signature,
}

/// The functions of tokens, with the tokenizers of models from `resolver`.
pub fn tokens_functions(resolver: &Arc<dyn ModelResolver>) -> [Arc<ScalarUDF>; 3] {
    [Ask::Numbers, Ask::Count, Ask::Chunks].map(|ask| {
        // Volatile, as calls of models are: what a name stands for changes, and no model is loaded to plan a query.
        let signature = Signature::user_defined(Volatility::Volatile);
        Arc::new(ScalarUDF::new_from_impl(TokensFunction { resolver: resolver.clone(), ask, signature }))
    })
}

impl PartialEq for TokensFunction {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.resolver, &other.resolver) && self.ask == other.ask
    }
}

impl Eq for TokensFunction {}

impl Hash for TokensFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.resolver).hash(state);
        self.ask.hash(state);
    }
}

/// Bytes of all parts of a batch: what overlaps is there several times.
const LARGEST_RESULT: usize = 1 << 30;

/// A string, in any of Arrow's layouts.
fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Dictionary(_, values) => is_text(values),
        data_type => data_type.is_string() || data_type.is_null(),
    }
}

impl TokensFunction {
    /// How it is called.
    fn usage(&self) -> &'static str {
        match self.ask {
            Ask::Numbers => "tokenize('model', text)",
            Ask::Count => "token_count('model', text)",
            Ask::Chunks => {
                "chunk_text('model', text[, max_tokens[, overlap]]) or chunk_text(text, max_words[, overlap])"
            }
        }
    }

    /// Where names are looked up.
    pub fn resolver(&self) -> &Arc<dyn ModelResolver> {
        &self.resolver
    }

    /// Whether the first argument of a call with arguments of these types is the name of a model.
    pub fn names_a_model(&self, types: &[DataType]) -> bool {
        match types {
            _ if self.ask != Ask::Chunks => true,
            [name, text, ..] => is_text(name) && is_text(text),
            _ => false,
        }
    }

    /// The model that a literal names.
    fn resolve(&self, name: Option<&ScalarValue>) -> Result<Resolved> {
        match name.and_then(ScalarValue::try_as_str) {
            Some(Some(name)) => self.resolver.resolve(name),
            Some(None) => plan_err!("{}: the model's name is NULL", self.name()),
            None => {
                plan_err!("{}: the model's name must be a string literal, as in {}", self.name(), self.usage())
            }
        }
    }

    /// A number of tokens, the same for all rows.
    fn number(&self, what: &str, value: &ColumnarValue) -> Result<usize> {
        let ColumnarValue::Scalar(ScalarValue::Int64(found)) = value else {
            return plan_err!("{}: {what} must be one number for all rows, as in {}", self.name(), self.usage());
        };
        match found.and_then(|number| usize::try_from(number).ok()) {
            Some(number) => Ok(number),
            None => plan_err!("{}: {what} must be a number from 0 on, found {}", self.name(), value_of(*found)),
        }
    }

    /// The parts of each text.
    fn chunks(
        &self,
        tokenizer: Option<&dyn Tokenizer>,
        texts: &StringViewArray,
        numbers: &[ColumnarValue],
    ) -> Result<ArrayRef> {
        let max_tokens = numbers.first().map(|most| self.number("the largest number of tokens", most)).transpose()?;
        let overlap = numbers.get(1).map_or(Ok(0), |overlap| self.number("the overlap", overlap))?;
        let chunker = Chunker::new(tokenizer, max_tokens, overlap)?;
        let (mut lists, mut bytes) = (ListBuilder::new(StringBuilder::new()), 0);
        for text in texts {
            if let Some(text) = text {
                chunker.chunks(text, &mut |chunk| {
                    bytes += chunk.len();
                    if bytes > LARGEST_RESULT {
                        return exec_err!(
                            "chunk_text: the parts of the texts of a batch take more than {LARGEST_RESULT} bytes: choose a smaller overlap, or SET datafusion.execution.batch_size"
                        );
                    }
                    lists.values().append_value(chunk);
                    Ok(())
                })?;
            }
            lists.append(text.is_some());
        }
        Ok(Arc::new(lists.finish()))
    }
}

fn value_of(number: Option<i64>) -> String {
    number.map_or_else(|| "NULL".to_owned(), |number| number.to_string())
}

/// What `ask`, which is not for parts, gives for each text.
fn of_each(ask: Ask, tokenizer: &dyn Tokenizer, texts: &StringViewArray) -> Result<ArrayRef> {
    let tokens = texts.iter().map(|text| text.map(|text| tokenizer.tokens(text)).transpose());
    if ask == Ask::Count {
        let counts = tokens.map(|tokens| Ok(tokens?.map(|tokens| tokens.len() as i64)));
        return Ok(Arc::new(counts.collect::<Result<Int64Array>>()?));
    }
    let mut lists = ListBuilder::new(Int64Builder::new());
    for tokens in tokens {
        let tokens = tokens?;
        let is_valid = tokens.is_some();
        lists.values().extend(tokens.into_iter().flatten().map(|token| Some(i64::from(token))));
        lists.append(is_valid);
    }
    Ok(Arc::new(lists.finish()))
}

impl ScalarUDFImpl for TokensFunction {
    fn name(&self) -> &str {
        match self.ask {
            Ask::Numbers => "tokenize",
            Ask::Count => "token_count",
            Ask::Chunks => "chunk_text",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn documentation(&self) -> Option<&Documentation> {
        static NUMBERS: LazyLock<Documentation> = LazyLock::new(|| {
            let what = "Gives the numbers of a text's tokens, as a model of texts reads them, those that mark its beginning and \
                        its end among them. Nothing is cut.";
            documentation(what, "tokenize(model, text)").with_related_udf("token_count").build()
        });
        static COUNT: LazyLock<Documentation> = LazyLock::new(|| {
            let what = "Counts the tokens of a text, as a model of texts reads them, those that mark its beginning and its end \
                        among them: whether it has more than the model takes.";
            documentation(what, "token_count(model, text)").with_related_udf("chunk_text").build()
        });
        static CHUNKS: LazyLock<Documentation> = LazyLock::new(|| {
            let what = "Cuts a text into parts of at most so many tokens, between paragraphs, sentences or words where that is \
                        possible, so that each fits into a model. Without a model's name, words and marks are counted.";
            documentation(what, "chunk_text([model, ]text, max_tokens[, overlap])")
                .with_argument(
                    "max_tokens",
                    "The most tokens of a part, those that mark beginning and end among them; with a model it may be left out: as many as \
                     that takes.",
                )
                .with_argument("overlap", "The most tokens that two neighbours share; 0 if it is left out.")
                .with_sql_example(
                    "```sql\nSELECT id, unnest(chunk_text('minilm', body, 256, 32)) FROM docs;\n\
                     SELECT id, unnest(chunk_text(body, 200)) FROM docs;\n```",
                )
                .with_related_udf("token_count")
                .build()
        });
        Some(match self.ask {
            Ask::Numbers => &NUMBERS,
            Ask::Count => &COUNT,
            Ask::Chunks => &CHUNKS,
        })
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let texts = if self.names_a_model(types) { 2 } else { 1 };
        let numbers = match self.ask {
            Ask::Chunks if texts == 2 => 0..=2,
            Ask::Chunks => 1..=2,
            _ => 0..=0,
        };
        let found = types.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if types.len() < texts || !numbers.contains(&(types.len() - texts)) {
            return plan_err!("{}: expected {}, found ({found})", self.name(), self.usage());
        }
        let (words, counts) = types.split_at(texts);
        let fit = words.iter().all(is_text) && counts.iter().all(|it| it.is_integer() || it.is_null());
        if !fit {
            return plan_err!("{}: expected {}, found ({found})", self.name(), self.usage());
        }
        // The name stays the literal that it is: within a cast it would be none.
        let (names, words) = words.split_at(texts - 1);
        let coerced = names.iter().cloned().chain(words.iter().map(|_| DataType::Utf8View));
        let coerced = coerced.chain(counts.iter().map(|_| DataType::Int64));
        Ok(coerced.collect())
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.ask {
            Ask::Numbers => DataType::new_list(DataType::Int64, true),
            Ask::Count => DataType::Int64,
            Ask::Chunks => DataType::new_list(DataType::Utf8, true),
        })
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        if self.names_a_model(&types) {
            self.resolve(args.scalar_arguments.first().copied().flatten())?; // a name that is not known fails before a query runs
        }
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let types: Vec<_> = args.args.iter().map(ColumnarValue::data_type).collect();
        let (tokenizer, rest) = match args.args.as_slice() {
            [ColumnarValue::Scalar(name), rest @ ..] if self.names_a_model(&types) => {
                (Some(self.resolve(Some(name))?.first()?.tokenizer()?), rest)
            }
            all => (None, all),
        };
        let [text, numbers @ ..] = rest else { return exec_err!("{}: expected {}", self.name(), self.usage()) };
        // One text is looked at once, however many rows there are.
        let rows = if matches!(text, ColumnarValue::Scalar(_)) { 1 } else { args.number_rows };
        let texts = text.to_array(rows)?;
        let texts = texts.as_string_view();
        let result = match (self.ask, &tokenizer) {
            (Ask::Chunks, tokenizer) => self.chunks(tokenizer.as_deref(), texts, numbers)?,
            (ask, Some(tokenizer)) => of_each(ask, tokenizer.as_ref(), texts)?,
            (_, None) => return exec_err!("{}: expected {}", self.name(), self.usage()),
        };
        match text {
            ColumnarValue::Scalar(_) => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?)),
            ColumnarValue::Array(_) => Ok(ColumnarValue::Array(result)),
        }
    }
}

fn documentation(what: &str, usage: &str) -> datafusion::logical_expr::DocumentationBuilder {
    Documentation::builder(DOC_SECTION_OTHER, what, usage)
        .with_argument("model", "The name of a model of texts, as a string literal.")
        .with_argument("text", "The text.")
}
