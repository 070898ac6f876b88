"""Which attributes of the source an output keeps, by DICOM module (PS3.3). Everything else is left out.

An allow-list: acquisition parameters of the other modality, private attributes, padding values, windows, presentation
and workflow attributes are not carried over, and neither is anything that no one thought of.
"""

from __future__ import annotations

PATIENT = (  # C.7.1.1, C.7.2.2
    "PatientName",
    "PatientID",
    "IssuerOfPatientID",
    "PatientBirthDate",
    "PatientSex",
    "OtherPatientIDsSequence",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "DeidentificationMethodCodeSequence",
    "QualityControlSubject",
    "PatientBirthTime",
    "OtherPatientNames",
    "EthnicGroup",
    "PatientComments",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "MedicalAlerts",
    "Allergies",
    "PregnancyStatus",
    "SmokingStatus",
    "Occupation",
    "AdditionalPatientHistory",
    "AdmittingDiagnosesDescription",
    "AdmissionID",
)
CLINICAL_TRIAL = (  # C.7.1.3
    "ClinicalTrialSponsorName",
    "ClinicalTrialProtocolID",
    "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID",
    "ClinicalTrialSiteName",
    "ClinicalTrialSubjectID",
    "ClinicalTrialSubjectReadingID",
)
STUDY = (  # C.7.2.1
    "StudyInstanceUID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "IssuerOfAccessionNumberSequence",
    "StudyDescription",
    "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy",
    "ProcedureCodeSequence",
)
SERIES = ("PatientPosition", "BodyPartExamined", "AnatomicRegionSequence", "Laterality", "ImageLaterality")  # C.7.3.1
FRAME_OF_REFERENCE = ("FrameOfReferenceUID", "PositionReferenceIndicator")  # C.7.4.1
IMAGE = ("InstanceNumber", "AcquisitionNumber", "AcquisitionDate", "AcquisitionTime")  # C.7.6.1
IMAGE_PLANE = (  # C.7.6.2
    "PixelSpacing",
    "ImageOrientationPatient",
    "ImagePositionPatient",
    "SliceThickness",
    "SpacingBetweenSlices",
    "SliceLocation",
)
LOSSY = ("LossyImageCompressionRatio", "LossyImageCompressionMethod")  # C.7.6.1.1.5

KEPT = (
    "SpecificCharacterSet",
    *PATIENT,
    *CLINICAL_TRIAL,
    *STUDY,
    *SERIES,
    *FRAME_OF_REFERENCE,
    *IMAGE,
    *IMAGE_PLANE,
)
# Type 2: must be there, may be empty.
TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "StudyID",
    "AccessionNumber",
    "PositionReferenceIndicator",
    "PatientPosition",
    "InstanceNumber",
    "AcquisitionNumber",
    "SliceThickness",
)
TYPE_2_CT = ("KVP",)
TYPE_2_MR = ("ScanOptions", "MRAcquisitionType", "RepetitionTime", "EchoTime", "EchoTrainLength")
