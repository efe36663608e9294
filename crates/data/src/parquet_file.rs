//! Parquet files whose row groups are read when they are asked for.

use crate::DataError;
use crate::frame::{Cells, Column, Frame};
use crate::frame_arrow::{FrameBuilder, MOST_CATEGORIES, PARQUET, project, safely, wrong};
use crate::layout::MAX_BYTES;
use crate::settle::{Kind, Settling};
use arrow_array::RecordBatchReader;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use std::collections::VecDeque;
use std::fmt::Display;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};

/// A Parquet file, the kinds of its columns, and the row groups that were read last.
pub(crate) struct ParquetFile {
    name: String,
    metadata: ArrowReaderMetadata,
    mask: ProjectionMask,
    columns: Vec<(String, Kind)>,
    /// The number of the first row of each group, and that of all rows.
    starts: Vec<usize>,
    most_groups: usize,
    state: Mutex<State>,
}

/// What one thread uses at a time: so no more groups are unpacked at once than are kept.
struct State {
    file: File,
    /// The last used last.
    groups: VecDeque<(usize, Arc<Frame>)>,
}

impl ParquetFile {
    pub(crate) fn open(path: &Path, columns: Option<&[&str]>, groups: usize) -> Result<ParquetFile, DataError> {
        let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
        let name = path.display().to_string();
        let failed = |error: &dyn Display| wrong(&name, PARQUET, error);
        safely(&name, PARQUET, || {
            let options = ArrowReaderOptions::new();
            let metadata = ArrowReaderMetadata::load(&file, options).map_err(|error| failed(&error))?;
            let mask = project(&metadata, columns)?;
            let mut starts = vec![0usize];
            for group in metadata.metadata().row_groups() {
                let next =
                    usize::try_from(group.num_rows()).ok().and_then(|rows| starts[starts.len() - 1].checked_add(rows));
                starts.push(next.ok_or_else(|| failed(&"a row group of an impossible number of rows"))?);
            }
            let (columns, state) = (Vec::new(), Mutex::new(State { file, groups: VecDeque::new() }));
            let (name, most_groups) = (name.clone(), groups.max(1));
            let mut this = ParquetFile { name, metadata, mask, columns, starts, most_groups, state };
            this.columns = this.settle()?;
            Ok(this)
        })
    }

    pub(crate) fn rows(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    /// The kinds of columns, by a look at all groups.
    fn settle(&self) -> Result<Vec<(String, Kind)>, DataError> {
        let mut columns: Option<Vec<Settling>> = None;
        let mut left = MAX_BYTES;
        let state = self.lock();
        // Without groups there is still a schema.
        for group in 0..(self.starts.len() - 1).max(1) {
            let groups = if self.starts.len() > 1 { vec![group] } else { Vec::new() };
            let (builder, frame) = self.read_groups(&state.file, groups)?;
            let columns = columns.get_or_insert(builder);
            for (column, Column { cells, .. }) in columns.iter_mut().zip(frame.columns()) {
                let mut look = |text: &str| {
                    let kept = column.look(Some(text), MOST_CATEGORIES, (&self.name, 0, 0))? as u64;
                    let too_large = || wrong(&self.name, PARQUET, format!("categories of more than {MAX_BYTES} bytes"));
                    left = left.checked_sub(kept).ok_or_else(too_large)?;
                    Ok::<_, DataError>(())
                };
                match cells {
                    Cells::Numbers(_) => {}
                    Cells::Categories(categories) => categories.vocabulary().iter().try_for_each(|text| look(text))?,
                    Cells::Texts(texts) => texts.iter().flatten().try_for_each(|text| look(text))?,
                }
            }
        }
        columns.into_iter().flatten().map(Settling::settle).collect()
    }

    /// Some groups as a frame of their own, and what its columns may become in the whole file.
    fn read_groups(&self, file: &File, groups: Vec<usize>) -> Result<(Vec<Settling>, Frame), DataError> {
        let file = file.try_clone().map_err(|source| DataError::Read { name: self.name.clone(), source })?;
        let failed = |error: &dyn Display| wrong(&self.name, PARQUET, error);
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let builder = builder.with_projection(self.mask.clone()).with_row_groups(groups).with_batch_size(8192);
        let reader = builder.build().map_err(|error| failed(&error))?;
        let mut frame = FrameBuilder::new(&self.name, PARQUET);
        frame.start(&reader.schema())?;
        let settling = frame.settling()?;
        for batch in reader {
            frame.append(&batch.map_err(|error| failed(&error))?)?;
        }
        Ok((settling, frame.finish()?))
    }

    /// Rows that there are, in ascending order; one may come several times.
    pub(crate) fn read_ascending(&self, rows: &[usize]) -> Result<Frame, DataError> {
        let empty = |(name, kind): &(String, Kind)| Column { name: name.clone(), cells: kind.no_cells() };
        let mut frame = Frame::new(self.columns.iter().map(empty).collect())?;
        let group_of = |row: usize| self.starts.partition_point(|&start| start <= row) - 1;
        for rows in rows.chunk_by(|&a, &b| group_of(a) == group_of(b)) {
            let group = group_of(rows[0]);
            let rows: Vec<usize> = rows.iter().map(|row| row - self.starts[group]).collect();
            frame.append_rows(&*self.group(group)?, &rows)?;
        }
        Ok(frame)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A row group, read unless it was lately.
    fn group(&self, group: usize) -> Result<Arc<Frame>, DataError> {
        let mut state = self.lock();
        if let Some(place) = state.groups.iter().position(|(number, _)| *number == group)
            && let Some(kept) = state.groups.remove(place)
        {
            state.groups.push_back(kept.clone());
            return Ok(kept.1);
        }
        while state.groups.len() >= self.most_groups {
            state.groups.pop_front();
        }
        let frame = safely(&self.name, PARQUET, || {
            let (_, frame) = self.read_groups(&state.file, vec![group])?;
            let settled = self.columns.iter().zip(frame.into_columns()).map(|((_, kind), Column { name, cells })| {
                let changed = || wrong(&self.name, PARQUET, format!("column `{name}` unlike when it was opened"));
                let cells = kind.cells(cells).ok_or_else(changed)?;
                Ok(Column { name, cells })
            });
            Frame::new(settled.collect::<Result<_, DataError>>()?)
        })?;
        if frame.rows() != self.starts[group + 1] - self.starts[group] {
            return Err(wrong(
                &self.name,
                PARQUET,
                format!("{} rows in group {group}, other than it says", frame.rows()),
            ));
        }
        let frame = Arc::new(frame);
        state.groups.push_back((group, frame.clone()));
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use crate::{ColumnPlan, DataError, Dataset, Frame, FrameFile};
    use arrow_array::types::Int32Type;
    use arrow_array::{ArrayRef, DictionaryArray, Int64Array, RecordBatch, StringArray};
    use gradus_tensor::Key;
    use parquet::arrow::ArrowWriter;
    use parquet::file::properties::WriterProperties;
    use std::path::Path;
    use std::sync::Arc;

    const ROWS: usize = 1000;

    /// Each group has few notes, all have many.
    fn write(path: &Path, group: usize) {
        let rows = || 0..ROWS as i64;
        let note = |row: i64| (row % 9 != 0).then(|| format!("note {}", row / 3));
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("id", Arc::new(Int64Array::from_iter(rows().map(|row| (row % 7 != 0).then_some(row))))),
            ("note", Arc::new(StringArray::from_iter(rows().map(note)))),
            ("code", Arc::new(StringArray::from_iter(rows().map(|row| Some(format!("{}", row / 100)))))),
            (
                "site",
                Arc::new(DictionaryArray::<Int32Type>::from_iter(rows().map(|row| ["a", "b"][row as usize / 600]))),
            ),
        ];
        let columns = columns.into_iter().map(|(name, array)| (name, array, true));
        let batch = RecordBatch::try_from_iter_with_nullable(columns).unwrap();
        let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group)).build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        std::fs::write(path, writer.into_inner().unwrap()).unwrap();
    }

    #[test]
    fn rows_are_those_of_the_whole_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.parquet");
        write(&path, 64);
        let whole = Frame::read_parquet(&path).unwrap();
        assert!(whole.texts("note").is_ok() && whole.categories("code").is_ok());
        // As text: NaN is not equal to itself.
        let same = |found: Frame, expected: Frame| assert_eq!(format!("{found:?}"), format!("{expected:?}"));
        for groups in [0, 3, 100] {
            let file = FrameFile::open_parquet(&path, None, groups).unwrap();
            assert_eq!(file.rows(), ROWS);
            let mut rows = Key::new(groups as u64).shuffled(ROWS);
            rows.extend([7, 7, ROWS - 1, 0]);
            same(file.select_rows(&rows).unwrap(), whole.select_rows(&rows).unwrap());
            same(file.select_rows(&[]).unwrap(), whole.select_rows(&[]).unwrap());
            for &row in &rows[900..] {
                same(file.get(row).unwrap(), whole.select_rows(&[row]).unwrap());
            }
            assert!(matches!(file.get(ROWS), Err(DataError::NoRow { row: ROWS, rows: ROWS })));
            let (all, plan) = ((0..ROWS).collect::<Vec<_>>(), ColumnPlan::of(&whole));
            assert_eq!(plan.fit_pieces(|| file.pieces(&all, 77)).unwrap(), plan.fit(&whole).unwrap());
        }
    }

    #[test]
    fn columns_by_name_and_files_that_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("it.parquet");
        write(&path, 300);
        let some = FrameFile::open_parquet(&path, Some(&["code", "id"]), 1).unwrap();
        assert_eq!(some.get(3).unwrap().names().collect::<Vec<_>>(), ["id", "code"]);
        let error = FrameFile::open_parquet(&path, Some(&["none"]), 1).unwrap_err().to_string();
        assert!(error.contains("no column `none` among id, note"), "{error}");
        std::fs::write(&path, "no parquet").unwrap();
        assert!(matches!(some.get(ROWS - 1), Err(DataError::Malformed { .. })));
    }
}
