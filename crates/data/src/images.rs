//! Images: PNG and JPEG files, and folders of them by class.

use crate::elements::Elements;
use crate::{Array, DataError, Dataset};
use image::imageops::FilterType;
use image::{DynamicImage, ImageReader, Limits};
use std::fs::File;
use std::io::{BufRead, BufReader, Seek};
use std::path::{Path, PathBuf};

/// How images are read.
///
/// ```
/// use gradus_data::{Channels, ImageOptions, ImageSize};
/// let options = ImageOptions { size: ImageSize::Cover { height: 224, width: 224 }, ..ImageOptions::default() };
/// assert_eq!(options.channels, Channels::Rgb);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageOptions {
    /// Which channels; red, green and blue by default.
    pub channels: Channels,
    /// Which size; that of the file by default.
    pub size: ImageSize,
    /// The memory guard: an image with a side longer than this many pixels is an error before it is decoded; 16,384 by default.
    pub longest_side: u32,
    /// The memory guard: an image that takes more bytes to decode is an error; 512 MiB by default.
    pub max_bytes: u64,
}

impl Default for ImageOptions {
    fn default() -> ImageOptions {
        ImageOptions { channels: Channels::Rgb, size: ImageSize::AsItIs, longest_side: 1 << 14, max_bytes: 512 << 20 }
    }
}

/// The channels of images, 8 bits each. Transparency is left out, 16 bits become 8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One: luma.
    Grey,
    /// Red, green and blue.
    Rgb,
}

/// The size of images. What is made smaller is smoothed first (a triangle filter), as torchvision does it with `antialias`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageSize {
    /// That of the file.
    AsItIs,
    /// This one, whatever that does to proportions.
    Exact {
        /// Rows of pixels.
        height: u32,
        /// Columns of pixels.
        width: u32,
    },
    /// This one: scaled with its proportions until it covers the size, then cut to it around the middle.
    Cover {
        /// Rows of pixels.
        height: u32,
        /// Columns of pixels.
        width: u32,
    },
}

/// Reads a PNG or JPEG file, told by its first bytes: u8, `[channels, height, width]`.
///
/// # Errors
/// If it cannot be opened, is broken or neither, or larger than the options allow.
///
/// ```no_run
/// use gradus_data::{ImageOptions, read_image};
/// let image = read_image("cat.png", &ImageOptions::default())?;
/// assert_eq!(image.shape()[0], 3);
/// # Ok::<(), gradus_data::DataError>(())
/// ```
pub fn read_image(path: impl AsRef<Path>, options: &ImageOptions) -> Result<Array, DataError> {
    let path = path.as_ref();
    let file = File::open(path).map_err(|source| DataError::Open { path: path.to_path_buf(), source })?;
    image_from_reader(BufReader::new(file), &path.display().to_string(), options)
}

/// Reads the bytes of a PNG or JPEG file; errors call it `name`.
///
/// # Errors
/// As [`read_image`].
pub fn image_from_reader(from: impl BufRead + Seek, name: &str, options: &ImageOptions) -> Result<Array, DataError> {
    let wrong = |source| DataError::Image { name: name.into(), source };
    if let ImageSize::Exact { height, width } | ImageSize::Cover { height, width } = options.size {
        // Four channels at most.
        let bytes = (u64::from(height) * u64::from(width)).saturating_mul(4);
        if bytes == 0 || bytes > options.max_bytes {
            let (argument, found) = ("ImageOptions::size", format!("{height} × {width}"));
            let expected = "at least one pixel, and no more than ImageOptions::max_bytes allows";
            return Err(DataError::Argument { argument, found, expected });
        }
    }
    let broken = |source| DataError::Read { name: name.into(), source };
    let mut reader = ImageReader::new(from).with_guessed_format().map_err(broken)?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(options.longest_side);
    limits.max_image_height = Some(options.longest_side);
    limits.max_alloc = Some(options.max_bytes);
    reader.limits(limits);
    let image = reader.decode().map_err(wrong)?;
    let image = match options.size {
        ImageSize::AsItIs => image,
        ImageSize::Exact { height, width } => image.resize_exact(width, height, FilterType::Triangle),
        ImageSize::Cover { height, width } => image.resize_to_fill(width, height, FilterType::Triangle),
    };
    Ok(array(image, options.channels))
}

/// An image, channel by channel.
fn array(image: DynamicImage, channels: Channels) -> Array {
    let (height, width) = (image.height() as usize, image.width() as usize);
    match channels {
        Channels::Grey => Array::counted(vec![1, height, width], Elements::U8(image.into_luma8().into_raw())),
        Channels::Rgb => {
            let pixels = image.into_rgb8().into_raw();
            let channel = |c: usize| pixels.iter().skip(c).step_by(3).copied();
            let planes = (0..3).flat_map(channel).collect();
            Array::counted(vec![3, height, width], Elements::U8(planes))
        }
    }
}

/// A folder of images by class: each folder in it is a class, each `.png`, `.jpg` or `.jpeg` file therein, at any depth, an
/// image. Classes are numbered in the order of their names, images sorted by path: the same on every machine. Items are an
/// image (u8, `[channels, height, width]`), read when it is asked for, and its class.
///
/// ```no_run
/// use gradus_data::{Dataset, ImageFolder, ImageOptions, ImageSize};
/// let size = ImageSize::Cover { height: 64, width: 64 };
/// let pets = ImageFolder::open("pets", ImageOptions { size, ..ImageOptions::default() })?;
/// assert_eq!(pets.classes(), ["cat", "dog"]);
/// let (image, class) = pets.get(0)?;
/// assert_eq!((image.shape(), class), (&[3, 64, 64][..], 0));
/// # Ok::<(), gradus_data::DataError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ImageFolder {
    classes: Vec<String>,
    files: Vec<(PathBuf, u32)>,
    options: ImageOptions,
}

impl ImageFolder {
    /// Lists a folder. Links to folders are not followed, hidden files and folders left out.
    ///
    /// # Errors
    /// If a folder cannot be read, or there is no image.
    pub fn open(path: impl AsRef<Path>, options: ImageOptions) -> Result<ImageFolder, DataError> {
        let path = path.as_ref();
        let (mut classes, mut files) = (Vec::new(), Vec::new());
        for folder in entries(path)? {
            if !folder.is_folder {
                continue;
            }
            let before = files.len();
            let class = classes.len() as u32;
            // A stack, since folders may lie in each other as deep as they like.
            let mut folders = vec![folder.path.clone()];
            while let Some(next) = folders.pop() {
                for entry in entries(&next)? {
                    if entry.is_folder {
                        folders.push(entry.path);
                    } else if is_image(&entry.path) {
                        files.push((entry.path, class));
                    }
                }
            }
            if files.len() > before {
                files[before..].sort();
                classes.push(folder.path.file_name().unwrap_or_default().to_string_lossy().into_owned());
            }
        }
        if files.is_empty() {
            return Err(DataError::NoImages { path: path.to_path_buf() });
        }
        Ok(ImageFolder { classes, files, options })
    }

    /// The names of the classes.
    pub fn classes(&self) -> &[String] {
        &self.classes
    }

    /// The file and class of each image.
    pub fn files(&self) -> &[(PathBuf, u32)] {
        &self.files
    }

    /// The class of each image, without reading any: to split or to balance by.
    pub fn labels(&self) -> Vec<u32> {
        self.files.iter().map(|&(_, class)| class).collect()
    }
}

impl Dataset for ImageFolder {
    type Item = (Array, u32);

    fn len(&self) -> usize {
        self.files.len()
    }

    fn get(&self, index: usize) -> Result<(Array, u32), DataError> {
        let rows = self.files.len();
        let (path, class) = self.files.get(index).ok_or(DataError::NoRow { row: index, rows })?;
        Ok((read_image(path, &self.options)?, *class))
    }
}

struct Entry {
    path: PathBuf,
    is_folder: bool,
}

/// What a folder holds, sorted, without what is hidden.
fn entries(folder: &Path) -> Result<Vec<Entry>, DataError> {
    let failed = |source| DataError::Open { path: folder.to_path_buf(), source };
    let mut entries = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if !entry.file_name().to_string_lossy().starts_with('.') {
            let is_folder = entry.file_type().map_err(failed)?.is_dir();
            entries.push(Entry { path: entry.path(), is_folder });
        }
    }
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(entries)
}

fn is_image(path: &Path) -> bool {
    let extension = path.extension().map(|extension| extension.to_string_lossy().to_lowercase());
    extension.is_some_and(|extension| ["png", "jpg", "jpeg"].contains(&&extension[..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ImageFormat, Rgba, RgbaImage};
    use std::io::Cursor;

    fn png(width: u32, height: u32) -> Vec<u8> {
        let pixel = |x: u32, y: u32| Rgba([x as u8, y as u8, 200, 255]);
        let mut bytes = Cursor::new(Vec::new());
        RgbaImage::from_fn(width, height, pixel).write_to(&mut bytes, ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn read(bytes: &[u8], options: &ImageOptions) -> Result<Array, DataError> {
        image_from_reader(Cursor::new(bytes), "it.png", options)
    }

    #[test]
    fn channels_and_sizes() {
        let bytes = png(3, 2);
        let image = read(&bytes, &ImageOptions::default()).unwrap();
        let planes = vec![0u8, 1, 2, 0, 1, 2, 0, 0, 0, 1, 1, 1, 200, 200, 200, 200, 200, 200];
        assert_eq!(image, Array::new([3, 2, 3], planes).unwrap());
        let grey = read(&bytes, &ImageOptions { channels: Channels::Grey, ..ImageOptions::default() }).unwrap();
        assert_eq!(grey.shape(), [1, 2, 3]);
        for size in [ImageSize::Exact { height: 4, width: 5 }, ImageSize::Cover { height: 4, width: 5 }] {
            let resized = read(&bytes, &ImageOptions { size, ..ImageOptions::default() }).unwrap();
            assert_eq!(resized.shape(), [3, 4, 5]);
        }
        // Twice as wide as high, so that the middle half is left.
        let size = ImageSize::Cover { height: 8, width: 8 };
        let covered = read(&png(16, 8), &ImageOptions { size, ..ImageOptions::default() }).unwrap();
        let Elements::U8(pixels) = covered.elements() else { panic!() };
        assert_eq!(pixels[..8], [4, 5, 6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn broken_and_huge_images_are_errors() {
        let bytes = png(30, 20);
        let says = |bytes: &[u8], options: &ImageOptions| match read(bytes, options) {
            Err(DataError::Image { name, .. }) => assert_eq!(name, "it.png"),
            other => panic!("{other:?}"),
        };
        let options = ImageOptions::default();
        says(&bytes[..bytes.len() / 2], &options);
        says(b"GIF89a", &options);
        says(b"", &options);
        says(&bytes, &ImageOptions { longest_side: 29, ..options.clone() });
        says(&bytes, &ImageOptions { max_bytes: 1000, ..options.clone() });
        // A header that claims four billion pixels a side.
        let mut bomb = bytes.clone();
        bomb[16..24].fill(0xff);
        says(&bomb, &options);
        for size in [ImageSize::Exact { height: 0, width: 3 }, ImageSize::Cover { height: u32::MAX, width: u32::MAX }] {
            assert!(matches!(read(&bytes, &ImageOptions { size, ..options.clone() }), Err(DataError::Argument { .. })));
        }
    }

    #[test]
    fn folders_are_classes() {
        let folder = tempfile::tempdir().unwrap();
        let at = |path: &str| folder.path().join(path);
        for path in ["dog/deeper/b.PNG", "dog/a.png", "cat/x.jpeg", "empty/readme.txt", "cat/.hidden.png"] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), png(2, 2)).unwrap();
        }
        std::fs::write(at("stray.png"), png(2, 2)).unwrap();
        let images = ImageFolder::open(folder.path(), ImageOptions::default()).unwrap();
        assert_eq!((images.classes(), images.labels()), (&["cat".into(), "dog".into()][..], vec![0, 1, 1]));
        assert_eq!(images.files()[1].0, at("dog/a.png"));
        let (image, class) = images.get(2).unwrap();
        assert_eq!((image.shape(), class), (&[3, 2, 2][..], 1));
        std::fs::write(at("dog/a.png"), "no image").unwrap();
        assert!(images.get(1).unwrap_err().to_string().contains("dog/a.png"));
        assert!(matches!(images.get(3), Err(DataError::NoRow { .. })));
        assert!(matches!(ImageFolder::open(at("empty"), ImageOptions::default()), Err(DataError::NoImages { .. })));
        assert!(matches!(ImageFolder::open(at("none"), ImageOptions::default()), Err(DataError::Open { .. })));
    }
}
