//! A store that shows the files of a job's output as they are in one state, wherever they lie at that moment.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::{self, Debug, Display, Formatter};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMultipartOptions,
    PutOptions, PutPayload, PutResult, Result,
};
use url::Url;

use super::definition::generation_name;
use super::records::OutputFile;
use super::state::JobState;
use super::target::{Target, below};
use crate::storage::journal::timestamp;

/// States that queries may still be listing.
const LISTINGS: usize = 16;

/// Some files of a generation, listed as one folder.
#[derive(Debug)]
pub(super) struct Listing {
    generation: u64,
    run: Option<u64>,
    files: BTreeMap<String, OutputFile>,
    modified: i64,
}

impl Listing {
    /// `files` of a generation, of which some may still be where `run` has written them.
    pub(super) fn new(generation: u64, run: Option<u64>, files: Vec<OutputFile>, modified: i64) -> Self {
        let files = files.into_iter().map(|file| (file.path.clone(), file)).collect();
        Self { generation, run, files, modified }
    }

    /// Whether there are no files.
    pub(super) fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// What readers of a job see.
    pub(super) fn of(state: &JobState) -> Option<Self> {
        let generation = state.published?;
        let run = state.active.as_ref().map(|active| active.run);
        Some(Self::new(generation, run, state.output().cloned().collect(), state.at))
    }
}

/// A store that shows the files of [`Listing`]s, each as a folder, and finds a file wherever it is at that moment: in its
/// place, on its way there, or taken out.
pub(super) struct OutputStore {
    target: Target,
    /// Tells it from others of this process.
    number: usize,
    listings: Mutex<VecDeque<(String, Arc<Listing>)>>,
}

impl OutputStore {
    pub(super) fn new(target: Target) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        Self { target, number: NEXT.fetch_add(1, Ordering::Relaxed), listings: Mutex::default() }
    }

    /// Shows a listing as the folder `label`, and where that is.
    pub(super) fn show(&self, label: &str, listing: Listing) -> String {
        let folder = format!("{label}/{}/", generation_name(listing.generation));
        let mut listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.retain(|(known, _)| known != label);
        listings.push_back((label.to_owned(), Arc::new(listing)));
        if listings.len() > LISTINGS {
            listings.pop_front();
        }
        folder
    }

    fn listing(&self, label: &str) -> Option<Arc<Listing>> {
        let listings = self.listings.lock().unwrap_or_else(PoisonError::into_inner);
        listings.iter().find(|(known, _)| known == label).map(|(_, listing)| listing.clone())
    }

    /// Where a file may be, in the order in which it moves on while it is looked for.
    fn places(&self, location: &Path) -> Option<Vec<Path>> {
        let mut parts = location.parts();
        let label = parts.next()?.as_ref().to_owned();
        let generation: u64 = parts.next()?.as_ref().strip_prefix('g')?.parse().ok()?;
        let file: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
        let file = file.join("/"); // as stores have it
        let place = self.target.place(generation, &file);
        let mut places = vec![place.clone()];
        if let Some(listing) = self.listing(&label)
            && let Some(run) = listing.run
            && let Some(known) = listing.files.get(&file).filter(|file| !file.staged.is_empty())
        {
            places.extend([self.target.staged(run, &known.staged), place]);
        }
        places.push(self.target.retired(generation, &file));
        Some(places)
    }
}

impl Debug for OutputStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutputStore").field("target", &self.target).finish_non_exhaustive()
    }
}

impl Display for OutputStore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("the output of a job")
    }
}

fn read_only<T>() -> Result<T> {
    Err(object_store::Error::NotSupported { source: "the output of a job is written by its runs alone".into() })
}

#[async_trait]
impl ObjectStore for OutputStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        read_only()
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        read_only()
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let places = self.places(location).unwrap_or_default();
        let mut missing =
            object_store::Error::NotFound { path: location.to_string(), source: "no file of the job's output".into() };
        for place in places {
            match self.target.store.get_opts(&place, options.clone()).await {
                Err(error @ object_store::Error::NotFound { .. }) => missing = error,
                Ok(mut got) => {
                    got.meta.location = location.clone();
                    return Ok(got);
                }
                error => return error,
            }
        }
        Err(missing)
    }

    fn delete_stream(&self, _: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        stream::iter([read_only()]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let label = prefix.and_then(|prefix| prefix.parts().next().map(|part| part.as_ref().to_owned()));
        let Some((label, listing)) = label.and_then(|label| Some((label.clone(), self.listing(&label)?))) else {
            return stream::empty().boxed();
        };
        let generation = Path::from_iter([label, generation_name(listing.generation)]);
        let within = prefix.cloned().unwrap_or_default();
        let files: Vec<_> = listing
            .files
            .values()
            .filter_map(|file| {
                let location = below(&generation, &file.path);
                let inside = location.prefix_matches(&within);
                let last_modified = timestamp(listing.modified)?;
                inside.then(|| Ok(ObjectMeta { location, last_modified, size: file.size, e_tag: None, version: None }))
            })
            .collect();
        stream::iter(files).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let files: Vec<_> = self.list(prefix).collect::<Vec<_>>().await.into_iter().collect::<Result<_>>()?;
        let within = prefix.cloned().unwrap_or_default();
        let mut common_prefixes = std::collections::BTreeSet::new();
        let mut objects = vec![];
        for file in files {
            let rest: Vec<_> = file
                .location
                .prefix_match(&within)
                .into_iter()
                .flatten()
                .map(|part| part.as_ref().to_owned())
                .collect();
            match rest.as_slice() {
                [folder, _, ..] => _ = common_prefixes.insert(self::below(&within, folder)),
                _ => objects.push(file),
            }
        }
        Ok(ListResult { common_prefixes: common_prefixes.into_iter().collect(), objects })
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        read_only()
    }
}

/// The stores of a session's jobs, one for each output.
#[derive(Debug)]
pub(super) struct OutputStores {
    /// Tells these stores from those of other sessions.
    id: String,
    stores: Mutex<HashMap<String, Arc<OutputStore>>>,
}

impl Default for OutputStores {
    fn default() -> Self {
        let id = uuid::Uuid::new_v4().simple().to_string();
        Self { id: id[..16].to_owned(), stores: Mutex::default() }
    }
}

impl OutputStores {
    /// The store of the output at `target`, which `open` reaches, and its URL.
    pub(super) fn of(
        &self,
        target: &str,
        open: impl FnOnce() -> datafusion::common::Result<Target>,
    ) -> datafusion::common::Result<(Arc<OutputStore>, Url)> {
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = match stores.get(target) {
            Some(store) => store.clone(),
            None => {
                let store = Arc::new(OutputStore::new(open()?));
                stores.insert(target.to_owned(), store.clone());
                store
            }
        };
        let url = format!("predict-job://{}-{}", self.id, store.number);
        let url = Url::parse(&url).map_err(|cause| datafusion::common::DataFusionError::External(cause.into()))?;
        Ok((store, url))
    }
}
