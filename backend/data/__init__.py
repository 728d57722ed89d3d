"""Images and annotations in: safe reading, layouts, splits, snapshots; and the demo plant.

    files       a file, folder, zip or inbox as a list of entries; nothing is ever unpacked to disk
    images      the only door for pictures, and the store of kept ones; decoding: bytes to an upright RGB picture, or why not
    catalog     entries to records: which layout, which class, which marks; the readers are layouts_boxes (Pascal VOC, COCO),
                layouts_yolo, layouts_masks (MVTec AD, a mask beside each picture), layouts_folders (a folder for each
                class) and layouts_synthetic
    marks       marks as written, or masks, to boxes in pixels
    alike       the same and nearly the same pictures, by content and perceptual hash
    splits      train, val and test: from lists, from folders, or drawn by group of alike pictures
    snapshot    the immutable result of an import, written and read
    leaks       which synthetic pictures tell of val or test: the one rule for importer, combination and trainings
    normals     good pictures to learn from, and good pictures held out to set a threshold by
    importer    the recipe that ties these together
    combine     the recipe that adds judged synthetic pictures to a dataset's train images: a new snapshot; chosen reads them
    labelling   boxes that people drew, picture by picture; coco takes them to CVAT and back
    relabel     the recipe that makes a new snapshot of a dataset and of what people drew
    dataset     a snapshot as a YOLO folder
    shares      which train images a training shows: real, synthetic or both, and how many
    demo        pictures of a plant that does not exist; demo_plant is the recipe that gives it a history (with demo_charts,
                demo_alarms, demo_masters), demo_plates the one that makes a dataset of such pictures
"""
