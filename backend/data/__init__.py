"""Images and annotations in: safe reading, layouts, splits, snapshots; and the demo plant.

    files       a file, folder, zip or inbox as a list of entries; nothing is ever unpacked to disk
    images      bytes to an upright RGB picture, or one plain sentence why not; the store of kept images
    catalog     entries to records: which layout, which class, which marks; the readers are layouts_boxes (Pascal VOC, COCO),
                layouts_yolo and layouts_masks (MVTec AD, a mask beside each picture)
    marks       marks as written, or masks, to boxes in pixels
    alike       the same and nearly the same pictures, by content and perceptual hash
    splits      train, val and test: from lists, from folders, or drawn by group of alike pictures
    snapshot    the immutable result of an import, written and read
    normals     good pictures to learn from, and good pictures held out to set a threshold by
    importer    the recipe that ties these together
    dataset     a snapshot as a YOLO folder
    demo        pictures of a plant that does not exist; demo_plant is the recipe that gives it a history
"""
