"""Sound CIFs, to be damaged: symbols, numbers, Hall symbols and listed operations, uncertainties, formulas."""

CIFS = (
    """data_quartz
_symmetry_space_group_name_H-M 'P 32 2 1'
_cell_length_a 4.913(2)
_cell_length_b 4.913
_cell_length_c 5.405
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_chemical_formula_sum 'O2 Si1'
_cell_formula_units_Z 3
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Si1 Si4+ 0.4697 0 0.66667 1
O1 O2- 0.4135 0.2669 0.7858 1.0
""",
    """data_salt
_symmetry_Int_Tables_number 225
_symmetry_space_group_name_H-M 'F m -3 m'
_space_group_name_Hall '-F 4 2 3'
_cell_length_a 5.64
_cell_length_b 5.64
_cell_length_c 5.64
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 0 0 0
Cl1 0.5 0.5 0.5
""",
    """data_operators
_publ_section_title
;
data_ in a text
;
_cell_length_a 3
_cell_length_b 4
_cell_length_c 5
_cell_angle_alpha 90
_cell_angle_beta 100
_cell_angle_gamma 90
loop_
_space_group_symop_operation_xyz
x,y,z
'-x,y+1/2,-z'
-x,-y,-z
'x,-y+1/2,z'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Zr1 Zr 0.1234 0.1156 0.3178
""",
)

MORE_CIFS = (
    """data_calcite
_cell_length_a 4.991(2)
_cell_length_b 4.991(2)
_cell_length_c 17.062(2)
_cell_angle_alpha 90.
_cell_angle_beta 90.
_cell_angle_gamma 120.
_cell_volume 368.08
_cell_formula_units_Z 6
_chemical_formula_sum 'C Ca O3'
_symmetry_space_group_name_H-M 'R -3 c :H'
_symmetry_Int_Tables_number 167
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_Wyckoff_symbol
_atom_site_symmetry_multiplicity
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Ca1 Ca2+ b 6 0 0 0 1.
C1 C4+ a 6 0 0 0.25 1.
O1 O2- e 18 0.2578(4) 0 0.25 1.
""",
    """data_perovskite
_cell_length_a 5.3796
_cell_length_b 7.6394
_cell_length_c 5.4423
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_name_H-M_alt 'P n m a'
_space_group_IT_number 62
loop_
_space_group_symop_operation_xyz
'x, y, z'
'-x+1/2, -y, z+1/2'
'-x, y+1/2, -z'
'x+1/2, -y+1/2, -z+1/2'
'-x, -y, -z'
'x+1/2, y, -z+1/2'
'x, -y+1/2, z'
'-x+1/2, y+1/2, z+1/2'
loop_
_atom_site_label
_atom_site_occupancy
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_U_iso_or_equiv
Ca1 1.0 0.0355(1) 0.25 0.9932(1) 0.0123(4)
Ti1 1.0 0 0 0.5 0.005
O1 1.0 0.4838(2) 0.25 0.0707(2) ?
O2 1.0 0.2891(1) 0.0373(1) 0.7108(1) .
""",
    """data_albite_like
_cell_length_a 5.1(1)
_cell_length_b 6.25
_cell_length_c 7.01
_cell_angle_alpha 94.3
_cell_angle_beta 101.65
_cell_angle_gamma 87.7
_symmetry_space_group_name_H-M 'P -1'
loop_
_symmetry_equiv_pos_site_id
_symmetry_equiv_pos_as_xyz
1 x,y,z
2 -x,-y,-z
loop_
_atom_site_label
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Na1 0.2683 0.9888 0.1463
Si1 0.0088 0.3685 0.2081
O1 0.5049 0.4312 0.7661
""",
    """data_monoclinic
_cell_length_a 9.746
_cell_length_b 8.899
_cell_length_c 5.251
_cell_angle_alpha 90
_cell_angle_beta 105.63
_cell_angle_gamma 90
_symmetry_space_group_name_H-M 'C 1 2/c 1'
_symmetry_space_group_name_Hall '-C 2yc'
_symmetry_Int_Tables_number 15
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Mg1 Mg 0 0.9065 0.25
Si1 Si 0.2876 0.0914 0.2277
O1 O 0.1136 0.0861 0.1390
""",
    """data_hexagonal
_cell_length_a 3.2495
_cell_length_b 3.2495
_cell_length_c 5.2069
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 120
_symmetry_space_group_name_H-M 'P 63 m c'
_symmetry_Int_Tables_number 186
_chemical_formula_structural ZnO
_chemical_formula_sum 'O1 Zn1'
_cell_formula_units_Z 2
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
Zn1 Zn2+ 0.3333 0.6667 0
O1 O2- 0.3333 0.6667 0.3821
""",
)
